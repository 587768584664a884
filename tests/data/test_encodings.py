"""Encodings: every character survives, what is guessed is said, and a wrong setting is refused with the line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hubtune import recipe
from hubtune.data import sources
from hubtune.errors import DataError, RecipeError

TEXTS = ["Café “très bon” – €49", "plain words", "Über die Größe, naïve"]  # noqa: RUF001
JAPANESE = ["こんにちは世界、とても良い商品です", "商品が届かない", "早く返金してください"]
RUSSIAN = ["Привет, как дела? Товар не пришёл", "Съешь же ещё этих мягких французских булок"]


def table(texts: list[str], delimiter: str = ",", end: str = "\n") -> str:
    return end.join([f"text{delimiter}label", *(f'"{text}"{delimiter}a' for text in texts), ""])


def written(folder: Path, content: str | bytes, encoding: str = "utf-8", name: str = "rows.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def texts(path: Path, **settings: Any) -> tuple[list[str], list[str]]:
    data = sources.load(path, **settings)
    return list(data.splits["train"]["text"]), data.notes


def refusal(path: Path, **settings: Any) -> str:
    with pytest.raises(DataError) as caught:
        sources.load(path, **settings)
    assert caught.value.where == path.name
    return str(caught.value)


# --------------------------------------------------------------------------------------------- told by the file


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_byte_order_marks_tell_the_encoding_and_nothing_is_said(tmp_path: Path, encoding: str, delimiter: str, end: str) -> None:
    assert texts(written(tmp_path, table(TEXTS, delimiter, end), encoding)) == (TEXTS, [])


@pytest.mark.parametrize(("mark", "encoding"), [(b"\xfe\xff", "utf-16-be"), (b"\0\0\xfe\xff", "utf-32-be")])
def test_big_endian_marks(tmp_path: Path, mark: bytes, encoding: str) -> None:
    assert texts(written(tmp_path, mark + table(TEXTS).encode(encoding))) == (TEXTS, [])


def test_excel_s_unicode_text_is_a_table(tmp_path: Path) -> None:
    path = written(tmp_path, table(["two\nlines", *TEXTS], "\t", "\r\n"), "utf-16", "export.txt")
    assert texts(path) == (["two\nlines", *TEXTS], [])


def test_json_conll_and_coco_are_read_in_other_encodings(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"text": text, "label": "a"}, ensure_ascii=False) + "\n" for text in TEXTS)
    assert texts(written(tmp_path, lines, "utf-16", "rows.jsonl")) == (TEXTS, [])
    assert texts(written(tmp_path, lines, "cp1252", "other.jsonl"))[0] == TEXTS
    whole = json.dumps([{"text": text} for text in TEXTS], ensure_ascii=False, indent=1)
    assert texts(written(tmp_path, whole, "cp1252", "rows.json"))[0] == TEXTS
    for name, encoding in (("tags.txt", "utf-16"), ("tags.conll", "cp1252")):
        path = written(tmp_path, "Café B-LOC\nist O\n\nZürich B-LOC\n", encoding, name)
        assert list(sources.load(path).splits["train"]["tokens"]) == [["Café", "ist"], ["Zürich"]]
    (tmp_path / "a.png").write_bytes(b"not really")
    document = {"images": [{"id": 1, "file_name": "a.png"}], "categories": [{"id": 1, "name": "Größe"}],
                "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1]}]}
    path = written(tmp_path, json.dumps(document, ensure_ascii=False), "utf-16", "coco.json")
    assert sources.load(path).splits["train"][0]["objects"]["category"] == ["Größe"]


# ------------------------------------------------------------------------------------------------------- guessed


@pytest.mark.parametrize(("encoding", "rows"), [
    ("cp1252", TEXTS), ("mac_roman", TEXTS), ("shift_jis", JAPANESE), ("euc_jp", JAPANESE), ("cp1251", RUSSIAN),
    ("koi8_r", RUSSIAN), ("gb18030", ["你好世界，这个产品很好", "退款还没有到账，请尽快处理"]),  # noqa: RUF001
    ("euc_kr", ["안녕하세요 세계, 아주 좋은 제품입니다"]), ("iso8859_15", ["Preis 12 € für Äpfel", "naïve Größe"]),
    ("cp1250", ["Příliš žluťoučký kůň úpěl ďábelské ódy"]), ("utf-16-le", TEXTS), ("utf-16-be", JAPANESE), ("utf-32-le", TEXTS),
    ("iso2022_jp", JAPANESE),
])
def test_other_encodings_are_guessed_and_the_guess_is_said_with_a_line(tmp_path: Path, encoding: str, rows: list[str]) -> None:
    found, notes = texts(written(tmp_path, table(["ascii only", *rows], ";"), encoding))
    assert found == ["ascii only", *rows]
    assert len(notes) == 1
    assert "rows.csv" in notes[0]
    assert "--set data.encoding=NAME" in notes[0]
    if not encoding.startswith("utf"):
        assert f"line 3 then says: '\"{rows[0]}" in notes[0]


def test_the_line_that_is_said_is_that_of_the_file_not_the_row(tmp_path: Path) -> None:
    path = written(tmp_path, 'text,label\n"two\nlines",a\n\n"49 €",b\n', "cp1252")
    assert "line 5 then says: '\"49 €\",b'" in texts(path)[1][0]


def test_the_euro_of_windows_survives_late_in_a_large_file(tmp_path: Path) -> None:
    path = written(tmp_path, "text,label\n" + "plain,a\n" * 140_000 + "49 €,b\n", "cp1252")
    found, notes = texts(path)
    assert found[-1] == "49 €"
    assert "line 140002 then says" in notes[0]


def test_lines_of_windows_in_a_file_of_utf_8_are_read_and_named(tmp_path: Path) -> None:
    content = table(["Zoë", "Zürich", "naïve", "größer"]).encode() + "Café und Größe,b\n".encode("cp1252")
    found, notes = texts(written(tmp_path, content))
    assert found == ["Zoë", "Zürich", "naïve", "größer", "Café und Größe"]
    assert "is UTF-8, but for 1 lines (6)" in notes[0]


def test_a_byte_of_windows_right_after_the_mark_is_read(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf\x80 text,label\n" + table(["Zoë", "Zürich"]).encode().partition(b"\n")[2]
    data = sources.load(written(tmp_path, content))
    assert data.splits["train"].column_names == ["€ text", "label"]
    assert "line 1 then says: '€ text,label'" in data.notes[0]


@pytest.mark.parametrize("cut", [b"\xe2\x82", b"\xf0\x9f\x98", b"\x82\xac"])
def test_a_character_that_was_cut_is_refused_with_its_line(tmp_path: Path, cut: bytes) -> None:
    content = table(["Zoë", "Zürich", "naïve", "größer"]).encode() + cut + b" x,b\n"
    assert "line 6 is not UTF-8" in refusal(written(tmp_path, content))


def test_a_file_that_contradicts_its_mark_is_refused(tmp_path: Path) -> None:
    assert "line 2 is not utf-16-le" in refusal(written(tmp_path, "text,label\n".encode("utf-16") + b"\x00\xd8a\0"))


# ---------------------------------------------------------------------------------------------------- as it is set


@pytest.mark.parametrize(("encoding", "name"), [
    ("cp1252", "cp1252"), ("cp1252", "Windows-1252"), ("shift_jis", "Shift-JIS"), ("utf-8-sig", "utf-8"), ("utf-16", "utf-16"),
    ("utf-16", "UTF-16LE"), ("utf-16-be", "utf-16-be"), ("utf-16-le", "utf-16"), ("utf-8", "UTF8"),
])
def test_an_encoding_that_is_set_is_used_and_nothing_is_said(tmp_path: Path, encoding: str, name: str) -> None:
    rows = JAPANESE if encoding == "shift_jis" else TEXTS
    assert texts(written(tmp_path, table(rows), encoding), encoding=name) == (rows, [])


@pytest.mark.parametrize(("encoding", "wrong", "line"), [
    ("cp1252", "utf-8", 2), ("cp1252", "ascii", 2), ("cp1252", "latin-1", 2), ("cp1252", "iso-8859-15", 2), ("cp1252", "utf-16", 1),
    ("utf-8", "cp1252", 2), ("utf-8", "latin-1", 2), ("utf-8-sig", "cp1252", 1), ("utf-16", "utf-8", 1), ("utf-16", "cp1252", 1),
    ("utf-16-le", "utf-8", 2), ("utf-16-le", "cp1252", 1), ("utf-8", "utf-16-le", 1), ("utf-8", "utf-32", 1), ("shift_jis", "euc_jp", 2),
])
def test_a_wrong_encoding_is_refused_with_its_line(tmp_path: Path, encoding: str, wrong: str, line: int) -> None:
    rows = JAPANESE if encoding == "shift_jis" else TEXTS
    said = refusal(written(tmp_path, table(rows), encoding), encoding=wrong)
    assert f"line {line} is not {wrong}, which data.encoding says" in said
    assert "data.encoding" in said.partition("\n")[2]


def test_names_of_encodings_are_checked_with_the_recipe() -> None:
    for name in ("cp1252", "Windows-1252", "latin1", "utf-16", "Shift_JIS"):
        assert recipe.build({"task": {"name": "t"}, "model": {"id": "m"}, "data": {"encoding": name}}).data.encoding == name
    for name, near in (("cp1253x", "cp1253"), ("hex", ""), ("rot13", ""), ("idna", ""), ("punycode", ""), ("unicode_escape", ""), ("utf-88", "utf_8"), ("windoes-1252", "windows_1252"), ("", "")):
        with pytest.raises(RecipeError, match=f"'{name}' is no encoding of text") as caught:
            recipe.build({"task": {"name": "t"}, "model": {"id": "m"}, "data": {"encoding": name}})
        assert near in str(caught.value)
    with pytest.raises(RecipeError, match="must be a string or none, not 5"):
        recipe.build({"task": {"name": "t"}, "model": {"id": "m"}, "data": {"encoding": 5}})


# ----------------------------------------------------------------------------------------------- what is no text


@pytest.mark.parametrize(("start", "what", "advice"), [
    (b"\x1f\x8b\x08", "a gzip file", "mv rows.csv rows.csv.gz"), (b"PAR1\x15", "a parquet file", "mv rows.csv rows.parquet"),
    (b"PK\x03\x04....xl/workbook.xml", "an Excel workbook", "mv rows.csv rows.xlsx"), (b"PK\x03\x04..a.csv", "a zip archive", "rows.zip"),
    (b"\x80\x04\x95", "a Python pickle", "can run code"), (b"BZh91AY", "a bzip2 file", "rows.csv.bz2"), (b"\xfd7zXZ\0", "an xz file", "rows.csv.xz"),
    (b"<!DOCTYPE HTML><html>", "an HTML page", "log-in"), (b"\xef\xbb\xbf\n <html lang='en'>", "an HTML page", "log-in"),
    (b"%PDF-1.7", "a PDF document", "CSV UTF-8"), (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", ".xls", "CSV UTF-8"),
    (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer", "git lfs pull"), (b"SQLite format 3\0", "an SQLite database", "sqlite3"),
    (b"\x89PNG\r\n", "a PNG image", "folder"), (b"ARROW1\0\0", "an Arrow file", "parquet"), (b'<?xml version="1.0"?>', "an XML file", ""),
])
@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.tsv", "rows.conll"])
def test_another_kind_of_file_is_told_by_its_first_bytes(tmp_path: Path, name: str, start: bytes, what: str, advice: str) -> None:
    said = refusal(written(tmp_path, start + b"\n1,2\n" * 50, name=name))
    assert f"it looks like {'' if what == '.xls' else what}" in said
    assert advice.replace(".csv", Path(name).suffix) in said or advice in said


def test_zero_bytes_are_refused_with_their_line(tmp_path: Path) -> None:
    assert "line 3 has a NUL byte" in refusal(written(tmp_path, b"text,label\na,b\nc\0d,e\n"))
    assert "line 1 has a NUL byte" in refusal(written(tmp_path, b'{"text": "a\0"}\n', name="rows.jsonl"))
    assert "NUL byte" in refusal(written(tmp_path, bytes(1000)))

"""Damaged files of every kind of text: rows, or one of our errors; no other exception, and no crash of a library."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from fuzz import hypothesis, try_many

from hubtune.data import sources
from hubtune.errors import HubtuneError

st = hypothesis.strategies

FEW = 60
TEXTS = ["plain words", "Café “très bon” €49", 'say "hi", please', "two\nlines", "日本語", "", "a\tb|c;d", "{'a': 1}"]
WHOLE = {
    "rows.csv": "text,label\n" + "".join('"' + text.replace('"', '""') + f'",{"ab"[n % 2]}\n' for n, text in enumerate(TEXTS)),
    "rows.tsv": "text\tlabel\n" + "".join('"' + text.replace('"', '""') + f'"\t{"ab"[n % 2]}\n' for n, text in enumerate(TEXTS)),
    "rows.txt": "text\tlabel\nplain words\ta\nCafé\tb\n",
    "rows.jsonl": "".join(json.dumps({"text": text, "label": n, "more": {"tags": ["x", None, 1.5]}}, ensure_ascii=bool(n % 2)) + "\n"
                          for n, text in enumerate(TEXTS)),
    "rows.json": json.dumps([{"text": text, "label": n} for n, text in enumerate(TEXTS)], indent=1, ensure_ascii=False),
    "coco.json": json.dumps({"images": [{"id": 1, "file_name": "a.png"}], "categories": [{"id": 1, "name": "x"}],
                             "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1]}]}),
    "rows.conll": "EU B-ORG\nrejects O\n\n-DOCSTART- O\n\nCafé B-LOC\n# a comment\n",
}
KINDS = {".csv": "csv, tsv, txt", ".tsv": "csv, tsv, txt", ".txt": "csv, tsv, txt", ".jsonl": "jsonl, json", ".json": "jsonl, json", ".conll": "conll"}
PIECES = [b"\0", b'"', b"'", b",", b"\t", b";", b"\n", b"\r", b"\r\n", b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\xe9", b"\x80", b"\xe2\x82",
          b"{", b"}", b"[", b"]", b":", b"null", b"NaN", b"-Infinity", b"1e999", b"9" * 30, b"9" * 5000, b"\\ud800", b"\\u0000", b"[" * 40,
          b'{"a":' * 40, b'{"text": 1}\n', b"PK\x03\x04", b"\x1f\x8b", b"PAR1", b"sep=;\n", b"\x1b$B", b" ", b"B-LOC", b"text", b"label"]
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252", "utf-32"]
numbers = itertools.count()


@st.composite
def damaged(draw: Any, whole: str) -> bytes:
    """A whole file in some encoding, with a few changes: pieces put in, parts taken out, doubled, cut or overwritten."""
    content = whole.encode(draw(st.sampled_from(ENCODINGS)), "replace")
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.integers(0, 30)))
        piece = draw(st.sampled_from(PIECES) | st.binary(max_size=6))
        content = {
            "put in": content[:start] + piece + content[start:], "overwrite": content[:start] + piece + content[end:],
            "double": content[:end] + content[start:], "cut": content[:end] if draw(st.booleans()) else content[start:],
        }[draw(st.sampled_from(["put in", "overwrite", "double", "cut"]))]
    return content


def read(folder: Path, name: str, content: bytes, **given_settings: str) -> None:
    """Read a file; its rows can be listed, and each begins on a line."""
    path = folder / f"{next(numbers)}-{name}"
    path.write_bytes(content)
    try:
        data = sources.load(path, **given_settings)
        for split, rows in data.splits.items():
            assert len(list(rows)) > 0
            if split in data.lines:
                assert data.lines[split].count == len(rows)
    except HubtuneError as error:
        if str(folder) in str(error):
            pytest.fail(f"a path of the machine is in: {error}")
    finally:
        path.unlink()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.parametrize("name", WHOLE)
def test_damaged_files_are_rows_or_an_error_of_ours(name: str, place: Path) -> None:
    try_many(KINDS[Path(name).suffix], lambda content: read(place, name, content), damaged(WHOLE[name]), FEW)


@pytest.mark.parametrize("name", WHOLE)
def test_any_bytes_are_rows_or_an_error_of_ours(name: str, place: Path) -> None:
    contents = st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass"))
    try_many(KINDS[Path(name).suffix], lambda content: read(place, name, content), contents, FEW)


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "utf-16", "shift_jis", "utf-7", "iso2022_jp"])
def test_damaged_files_in_an_encoding_that_is_set(encoding: str, place: Path) -> None:
    try_many("csv, tsv, txt", lambda content: read(place, "rows.csv", content, encoding=encoding), damaged(WHOLE["rows.csv"]), FEW)

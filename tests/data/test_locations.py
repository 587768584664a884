"""Where rows lie: compressed files, archives, patterns, standard input, and what is no file."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import lzma
import os
import socket
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hubtune.contract import registry
from hubtune.data import sources
from hubtune.data.files import locations, packed
from hubtune.errors import DataError, MissingExtra

TABLE = "text,label\nCafé,a\ntea,b\n"
PACKERS: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def put(folder: Path, name: str, content: bytes | str = TABLE) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def zipped(path: Path, **members: bytes | str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return path


def texts(source: Any, split: str = "train") -> list[str]:
    return list(sources.load(str(source)).splits[split]["text"])


def refusal(source: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        sources.load(str(source))
    return caught.value


# ----------------------------------------------------------------------------------------------------- compressed


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize(("name", "content", "encoding"), [
    ("rows.csv", TABLE, "utf-8"), ("rows.CSV", TABLE, "cp1252"), ("rows.tsv", TABLE.replace(",", "\t"), "utf-16"),
    ("rows.jsonl", '{"text": "Café"}\n{"text": "tea"}\n', "utf-8"), ("rows.json", '[{"text": "Café"}, {"text": "tea"}]', "utf-8"),
    ("rows", TABLE, "utf-8"), ("rows", '{"text": "Café"}\n{"text": "tea"}\n', "utf-8"),
])
def test_compressed_files_are_read_as_what_is_in_them(tmp_path: Path, suffix: str, name: str, content: str, encoding: str) -> None:
    path = put(tmp_path, name + suffix, PACKERS[suffix](content.encode(encoding)))
    assert texts(path) == ["Café", "tea"]


def test_a_compressed_file_has_the_fingerprint_of_its_content(tmp_path: Path) -> None:
    put(tmp_path, "rows.csv.gz", gzip.compress(TABLE.encode(), mtime=0))
    one, other = sources.load(tmp_path / "rows.csv.gz"), sources.load(put(tmp_path, "rows.csv"))
    assert one.fingerprint == other.fingerprint
    assert one.name == "rows.csv.gz"


def test_compressed_parquet_and_files_of_a_folder(tmp_path: Path) -> None:
    from datasets import Dataset

    Dataset.from_dict({"text": ["Café"]}).to_parquet(str(tmp_path / "rows.parquet"))
    put(tmp_path, "rows.parquet.gz", gzip.compress((tmp_path / "rows.parquet").read_bytes()))
    assert texts(tmp_path / "rows.parquet.gz") == ["Café"]
    put(tmp_path, "folder/train.csv.gz", gzip.compress(TABLE.encode(), mtime=0))
    put(tmp_path, "folder/test.csv.xz", lzma.compress(TABLE.encode()))
    assert {split: len(rows) for split, rows in sources.load(tmp_path / "folder").splits.items()} == {"train": 2, "test": 2}


def test_images_named_by_a_compressed_table_lie_beside_it(tmp_path: Path) -> None:
    put(tmp_path, "pictures/a.png", b"not really")
    put(tmp_path, "rows.csv.gz", gzip.compress(b"image,label\npictures/a.png,cat\n"))
    assert sources.load(tmp_path / "rows.csv.gz").splits["train"][0]["image"] == str(tmp_path / "pictures" / "a.png")


def test_a_zip_is_its_file_or_a_folder(tmp_path: Path) -> None:
    assert texts(zipped(tmp_path / "one.zip", inner__rows_dot_csv=TABLE, __MACOSX__rows_dot_csv=b"x")) == ["Café", "tea"]
    several = sources.load(zipped(tmp_path / "two.zip", train_dot_csv=TABLE, test_dot_csv=TABLE))
    assert {split: len(rows) for split, rows in several.splits.items()} == {"train": 2, "test": 2}
    assert several.name == "two.zip"


def test_a_zip_writes_nothing_outside_of_its_folder(tmp_path: Path) -> None:
    assert [packed.safe_path(name) for name in ("../a.csv", "/etc/a.csv", "a/../../b.csv", "..\\a.csv", "C:\\a.csv", ".hidden")] == [None] * 6
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("../escaped.csv", TABLE)
    assert "there is no file in it" in refusal(tmp_path / "bad.zip").message


@pytest.mark.parametrize(("name", "content", "message"), [
    ("a.csv.gz", gzip.compress(TABLE.encode(), mtime=0)[:30], "it cannot be unpacked"), ("a.csv.gz", b"text,label\n", "it cannot be unpacked"),
    ("a.csv.bz2", b"BZh9 not", "it cannot be unpacked"), ("a.csv.xz", b"\xfd7zXZ\0no", "it cannot be unpacked"), ("a.zip", b"PK\x03\x04 no", "it cannot be unpacked"),
    ("a.csv.gz", b"", "the file is empty"), ("a.tar.gz", b"", "an archive of this kind is not read"), ("a.7z", b"7z", "an archive of this kind"),
    ("a.csv.gz.xz", b"", "an archive of this kind"),
])
def test_broken_archives_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    error = refusal(put(tmp_path, name, content))
    assert message in error.message
    assert error.where in (name, "a.csv")


def test_a_file_that_grows_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "MAX_UNPACKED", 1 << 20)
    assert "it becomes more than" in refusal(put(tmp_path, "a.csv.gz", gzip.compress(bytes(1 << 24)))).message


# ------------------------------------------------------------------------------------------------------ patterns


def test_patterns_join_files_in_order_or_tell_splits(tmp_path: Path) -> None:
    for name in ("d2.csv", "d1.csv", "e.csv", "s/train.csv", "s/test.csv", "s/train_2.csv.gz"):
        content = f"text,label\n{name},a\n"
        put(tmp_path, name, gzip.compress(content.encode()) if name.endswith("gz") else content)
    assert texts(tmp_path / "d*.csv") == ["d1.csv", "d2.csv"]
    assert texts(tmp_path / "[de]*.csv") == ["d1.csv", "d2.csv", "e.csv"]
    assert texts(tmp_path / "**" / "t*n.csv") == ["s/train.csv"]
    assert texts(tmp_path / "s" / "t*") == ["s/train.csv", "s/train_2.csv.gz"]
    assert texts(tmp_path / "s" / "t*", "test") == ["s/test.csv"]
    data = sources.load(str(tmp_path / "d?.csv"))
    assert data.unsplit
    assert [data.lines["train"].file(row) for row in range(2)] == ["d1.csv", "d2.csv"]


def test_a_file_whose_name_is_a_pattern_is_the_file(tmp_path: Path) -> None:
    assert texts(put(tmp_path, "rows[1]*.csv")) == ["Café", "tea"]


def test_patterns_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "data.csv")
    put(tmp_path, "dir/x.csv")
    assert "no file fits the pattern" in refusal(tmp_path / "e*.csv").message
    assert "data.csv" in str(refusal(tmp_path / "e*.csv").hint)
    assert "fits folders, too: dir" in refusal(tmp_path / "d*").message
    put(tmp_path, "dir/train.csv")
    assert "fits files that name a split and others: x.csv" in refusal(tmp_path / "dir" / "*.csv").message
    put(tmp_path, "dir/y.jsonl", '{"text": "a"}\n')
    assert "several formats" in refusal(tmp_path / "dir" / "[xy].*").message


# ------------------------------------------------------------------------------------------------- standard input


@pytest.fixture
def give_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], None]]:
    """Make bytes the standard input, as a shell does with a file."""
    with contextlib.ExitStack() as opened:
        def give(content: bytes) -> None:
            path = put(tmp_path, "given", content)
            monkeypatch.setattr(sys, "stdin", opened.enter_context(path.open(encoding="latin-1")))

        yield give


@pytest.mark.parametrize("source", ["-", "/dev/stdin", "/dev/fd/0"])
@pytest.mark.parametrize(("content", "suffix"), [
    (TABLE.encode(), ".csv"), (TABLE.encode("cp1252"), ".csv"), (TABLE.replace(",", "\t").encode("utf-16"), ".csv"),
    ('{"text": "Café"}\n{"text": "tea"}\n'.encode(), ".jsonl"), ('[{"text": "Café"}, {"text": "tea"}]'.encode(), ".json"),
    (gzip.compress(TABLE.encode(), mtime=0), ".gz"),
])
def test_standard_input_is_copied_and_read(tmp_path: Path, give_stdin: Any, source: str, content: bytes, suffix: str) -> None:
    give_stdin(content)
    kept = locations.save_stdin(source, tmp_path / "kept")
    assert kept.name == f"stdin{suffix}"
    assert texts(kept) == ["Café", "tea"]
    give_stdin(content)
    assert texts(source) == ["Café", "tea"]


def test_another_descriptor_such_as_of_a_shell_s_substitution(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, TABLE.encode())
    os.close(writer)
    try:
        assert texts(f"/dev/fd/{reader}") == ["Café", "tea"]
    finally:
        os.close(reader)


def test_nothing_on_standard_input_is_refused(give_stdin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    give_stdin(b"")
    assert "standard input is empty" in refusal("-").message
    primary, secondary = os.openpty()
    monkeypatch.setattr(sys, "stdin", os.fdopen(secondary, "r"))
    assert "standard input is a terminal" in refusal("-").message
    os.close(primary)
    sys.stdin.close()
    assert "is closed" in refusal("-").message
    assert "/dev/fd/987 is closed" in refusal("/dev/fd/987").message


# ---------------------------------------------------------------------------------------------- what is no file


def test_what_is_no_file_is_refused_without_opening_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    error = refusal(tmp_path / "pipe.csv")
    assert "it is a named pipe" in error.message
    assert "--data - <" in str(error.hint)
    assert "it is a device" in refusal("/dev/zero").message
    (tmp_path / "gone.csv").symlink_to("nowhere.csv")
    assert "it is a link to 'nowhere.csv', which is not there" in refusal(tmp_path / "gone.csv").message
    (tmp_path / "loop").symlink_to("loop")
    assert refusal(tmp_path / "loop").where == "loop"
    here = Path.cwd()
    os.chdir(tmp_path)  # the path of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("s")
            assert "it is a socket" in refusal("s").message
    finally:
        os.chdir(here)
    assert "there is no file or folder" in refusal("x" * 5000).message


def test_what_the_user_may_not_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).startswith(str(tmp_path / "secret")))
    put(tmp_path, "secret.csv")
    assert "may not read the file" in refusal(tmp_path / "secret.csv").message
    put(tmp_path, "secret/train.csv")
    assert "may not read the folder" in refusal(tmp_path / "secret").message


def test_an_error_of_the_file_system_is_one_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path, "rows.csv")

    def broken(*given: Any, **named: Any) -> io.BytesIO:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(Path, "open", broken)
    error = refusal(path)
    assert (error.where, error.message) == ("rows.csv", "it cannot be read: Input/output error.")


@pytest.mark.parametrize(("name", "advice"), [
    ("a.xls", "CSV UTF-8 or .xlsx"), ("a.ods", "CSV UTF-8"), ("a.pkl", "can run code"), ("a.feather", ".parquet"), ("a.txt", "tabs"), ("a.foo", "docs/plugins.md"),
])
def test_other_types_are_refused_with_what_to_do(tmp_path: Path, name: str, advice: str) -> None:
    error = refusal(put(tmp_path, name, "x\n"))
    assert "unsupported file type" in error.message
    assert advice in str(error.hint)


def test_a_workbook_without_its_extra_names_what_to_install_or_to_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "importable", lambda name: name != "openpyxl")
    with pytest.raises(MissingExtra) as caught:
        sources.load(put(tmp_path, "a.xlsx", b"PK\x03\x04"))
    assert "pip install 'hubtune[excel]'" in str(caught.value)
    assert "CSV UTF-8" in str(caught.value)


# --------------------------------------------------------------------------------------------------------- splits


def three(folder: Path) -> Path:
    for name in ("train", "dev", "test", "gold"):
        put(folder, f"{name}.csv", f"text,label\n{name},a\n")
    return folder


@pytest.mark.parametrize(("chosen", "expected", "unused"), [
    (None, {"train": "train", "validation": "dev", "test": "test"}, ["gold.csv"]),
    (["train", "validation"], {"train": "train", "validation": "dev"}, ["test", "gold.csv"]),
    (["train"], {"train": "train"}, ["validation", "test", "gold.csv"]),
    ({"train": "train", "gold": "test"}, {"train": "train", "test": "gold"}, ["validation", "test"]),
])
def test_splits_are_chosen_by_name_and_the_others_are_named(tmp_path: Path, chosen: Any, expected: dict[str, str], unused: list[str]) -> None:
    data = sources.load(three(tmp_path), splits=chosen)
    assert {split: rows["text"][0] for split, rows in data.splits.items()} == expected
    assert sorted(data.unused_splits) == sorted(unused)


def test_a_split_that_is_left_out_is_not_read(tmp_path: Path) -> None:
    put(three(tmp_path), "test.csv", "not,a\ntable\n")
    assert set(sources.load(tmp_path, splits=["train", "validation"]).splits) == {"train", "validation"}


def test_splits_of_rows_in_memory_are_chosen_too() -> None:
    given = {name: [{"text": name}] for name in ("train_sft", "train_gen", "odd")}
    with pytest.raises(DataError, match="there are two train splits: train_sft, train_gen"):
        sources.load(given)
    data = sources.load(given, splits={"train_sft": "train", "odd": "validation"})
    assert {split: rows["text"][0] for split, rows in data.splits.items()} == {"train": "train_sft", "validation": "odd"}
    assert data.unused_splits == ["train_gen"]


@pytest.mark.parametrize(("chosen", "message"), [
    (["train", "tset"], "'tset' is not called train, validation or test"), (["train", "test"], "there is no split 'test'"),
    ({"train": "trian"}, "'trian' is none of them"), ({"trian": "train"}, "there is no split 'trian'. Did you mean 'train'?"),
])
def test_splits_that_are_not_there_are_refused(chosen: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        sources.load({"train": [{"text": "a"}]}, splits=chosen)
    assert message in str(caught.value)


def test_json_and_splits_in_a_recipe() -> None:
    from hubtune import recipe

    for value in ('["train", "test"]', '{train_sft = "train"}'):
        made = recipe.build(recipe.override({"task": {"name": "t"}, "model": {"id": "m"}}, [f"data.splits={value}"]))
        assert json.dumps(made.data.splits)
        assert recipe.build(made.as_dict()) == made

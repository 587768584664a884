"""Sources: every text stays what it is in the file, and a file that cannot be read is refused with its name."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from hubtune.data import sources
from hubtune.errors import DataError

ODD = ["NA", "null", "None", "nan", "", "007", "1.50", "true", "-", "1e5", "2020-01-01", " x ", "a,b", 'say "hi"', "日本"]


def table(delimiter: str) -> str:
    def cell(text: str) -> str:
        return '"' + text.replace('"', '""') + '"' if any(sign in text for sign in ',;\t|"') else text

    return "".join(f"{cell(left)}{delimiter}{right}\n" for left, right in
                   [("text", "label"), *((text, f"{index:03}") for index, text in enumerate(ODD))])


def texts(source: Any, split: str = "train") -> list[Any]:
    return list(sources.load(source).splits[split]["text"])


def refusal(source: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        sources.load(source)
    return caught.value


@pytest.mark.parametrize(("name", "delimiter"), [
    ("rows.csv", ","), ("rows.csv", ";"), ("rows.csv", "\t"), ("rows.csv", "|"), ("rows.tsv", "\t"), ("ROWS.CSV", ","),
])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_every_cell_of_a_table_stays_the_text_it_is(tmp_path: Path, name: str, delimiter: str, encoding: str) -> None:
    path = tmp_path / name
    path.write_text(table(delimiter), encoding=encoding)
    rows = sources.load(path).splits["train"]
    assert rows.column_names == ["text", "label"]
    assert [text or "" for text in rows["text"]] == ODD
    assert list(rows["label"]) == [f"{index:03}" for index in range(len(ODD))]


def test_a_tsv_may_hold_commas_and_a_csv_of_one_column_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("text\tlabel\nyes, it is\ta\n", encoding="utf-8")
    (tmp_path / "b.csv").write_text("text\nhello there\n", encoding="utf-8")
    assert texts(tmp_path / "a.tsv") == ["yes, it is"]
    assert texts(tmp_path / "b.csv") == ["hello there"]


def test_lines_within_quotes_and_ends_of_windows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'text,label\r\n"two\nlines",a\r\nplain,b\r\n')
    assert texts(tmp_path / "a.csv") == ["two\nlines", "plain"]


def test_json_lines_keep_texts_as_texts_and_null_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": text, "label": 1}) + "\n" for text in [*ODD, None]), encoding="utf-8")
    rows = sources.load(path).splits["train"]
    assert list(rows["text"]) == [*ODD, None]
    assert set(rows["label"]) == {1}


def test_a_json_array_is_read_like_lines(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps([{"text": "NA"}, {"text": "b"}], indent=1), encoding="utf-8")
    assert texts(tmp_path / "rows.json") == ["NA", "b"]


def test_parquet_is_read_with_its_types(tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset

    rows = Dataset.from_dict({"text": ODD, "label": [0, 1, 2] * 5}).cast_column("label", ClassLabel(names=["a", "b", "c"]))
    rows.to_parquet(str(tmp_path / "rows.parquet"))
    found = sources.load(tmp_path / "rows.parquet").splits["train"]
    assert list(found["text"]) == ODD
    assert found.features["label"].names == ["a", "b", "c"]


# ---------------------------------------------------------------------------------------------------- folders


def put(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".csv":
            path.write_text(f"text,label\nof {name},a\n", encoding="utf-8")
        else:
            path.write_text(json.dumps({"text": f"of {name}", "label": "a"}) + "\n", encoding="utf-8")


@pytest.mark.parametrize(("names", "splits"), [
    (["train.csv", "test.csv"], {"train": 1, "test": 1}),
    (["train.csv", "dev.csv", "eval.csv"], {"train": 1, "validation": 1, "test": 1}),
    (["training_set.jsonl", "valid.csv"], {"train": 1, "validation": 1}),
    (["train-00000-of-00002.csv", "train-00001-of-00002.csv"], {"train": 2}),
    (["train/a.csv", "train/b.csv", "validation/x.jsonl"], {"train": 2, "validation": 1}),
    (["only.csv"], {"train": 1}),
    (["train.csv", "notes.txt", "trainees.csv"], {"train": 1}),
])
def test_the_files_of_a_folder_are_told_apart_by_their_names(tmp_path: Path, names: list[str], splits: dict[str, int]) -> None:
    put(tmp_path, *names)
    found = sources.load(tmp_path)
    assert {split: len(rows) for split, rows in found.splits.items()} == splits
    assert found.name == tmp_path.name


def test_a_folder_without_a_train_file_names_what_it_has(tmp_path: Path) -> None:
    put(tmp_path, "one.csv", "two.csv")
    error = refusal(tmp_path)
    assert "has no train file. Data files in it: one.csv, two.csv." in error.message
    assert "train.csv" in str(error.hint)
    (tmp_path / "empty").mkdir()
    assert "none" in refusal(tmp_path / "empty").message


def test_a_split_in_two_formats_or_with_other_columns_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "train/a.csv", "train/b.jsonl")
    assert "one split is in several formats: a.csv, b.jsonl" in refusal(tmp_path).message
    (tmp_path / "train" / "b.jsonl").unlink()
    (tmp_path / "train" / "b.csv").write_text("text,stars\nx,1\n", encoding="utf-8")
    error = refusal(tmp_path)
    assert (error.where, "differ from those of a.csv" in error.message) == ("b.csv", True)


def test_hidden_files_are_no_data(tmp_path: Path) -> None:
    put(tmp_path, "train.csv", ".ipynb_checkpoints/train-checkpoint.csv")
    assert len(sources.load(tmp_path).splits["train"]) == 1


# --------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(("name", "content", "message"), [
    ("a.csv", b"", "the file is empty"),
    ("a.jsonl", b"", "the file is empty"),
    ("a.csv", b"\n\n", "there is no header line"),
    ("a.csv", b"text,text\na,b\n", "the header repeats text"),
    ("a.csv", b"text,label\na,b\nc,d,e,f\n", "row 2 (line 3) has 4 cells, but the header has 2"),
    ("a.csv", b'text,label\n"never closed,a\nb,c\n', "a quote that opens in row 1 (line 2) is never closed"),
    ("a.jsonl", b'{"text": "a"}\n{"text": \n', "row 2 (line 2) cannot be read"),
    ("a.parquet", b"PAR1 not really", "cannot be read as parquet"),
    ("a.txt", b"hello\n", "unsupported file type. Supported: .csv"),
])
def test_a_file_that_cannot_be_read_is_refused_by_its_name(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    error = refusal(path)
    assert message in error.message
    assert name in str(error)
    assert str(tmp_path) not in str(error)


@pytest.mark.parametrize(("name", "content"), [("a.csv", b"text,label\n"), ("a.jsonl", b"\n\n"), ("a.json", b"[]")])
def test_a_file_without_rows_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert "there are no rows in it" in refusal(tmp_path / name).message


@pytest.mark.xfail(strict=True, reason="a known limitation of datasets: a json column of nothing but dates is read as datetimes")
def test_json_texts_that_are_all_dates_stay_texts(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "2020-01-01"}\n{"text": "2020-01-02"}\n', encoding="utf-8")
    assert texts(tmp_path / "a.jsonl") == ["2020-01-01", "2020-01-02"]


def test_rows_longer_than_the_header_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\nfirst,second,third\nfourth,fifth,sixth\n", encoding="utf-8")
    refusal(path)


def test_a_first_text_may_be_long(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"text,label\n{'word ' * 30_000},a\nshort,b\n", encoding="utf-8")
    assert [len(text) for text in texts(tmp_path / "a.csv")] == [150_000, 5]


def test_the_cells_that_a_row_lacks_are_empty(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label,note\none,a,x\n\ntwo\n\"th\nree\",b\n", encoding="utf-8")
    data = sources.load(tmp_path / "a.csv")
    assert [list(row.values()) for row in data.splits["train"]] == [["one", "a", "x"], ["two", "", ""], ["th\nree", "b", ""]]
    assert list(data.lines["train"].short) == [1, 2]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.csv.gz"])
def test_an_empty_file_is_refused_with_what_to_do(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b"") if name.endswith(".gz") else b"")
    assert "--data FILE" in (refusal(tmp_path / name).hint or "")


@pytest.mark.parametrize(("source", "message"), [
    ("", "no data: --data is empty"), ("./nowhere", "there is no file or folder './nowhere'"),
    ("reviews.cvs.csv", "there is no file or folder"), ("a b c", "not a Hub data set of the form org/name"),
])
def test_invalid_sources_are_refused(source: str, message: str) -> None:
    assert message in refusal(source).message


def test_a_misspelt_file_is_answered_with_the_near_one(tmp_path: Path) -> None:
    put(tmp_path, "reviews.csv")
    assert "Did you mean 'reviews.csv'?" in refusal(tmp_path / "reveiws.csv").message


# -------------------------------------------------------------------------------------------- names and hashes


def test_a_fingerprint_is_that_of_the_content_wherever_it_lies(tmp_path: Path) -> None:
    put(tmp_path, "one/a.csv", "two/a.csv")
    (tmp_path / "two" / "a.csv").write_bytes((tmp_path / "one" / "a.csv").read_bytes())
    one, two = (sources.load(tmp_path / name / "a.csv") for name in ("one", "two"))
    assert one.fingerprint == two.fingerprint
    assert (one.name, one.repo, one.commit) == ("a.csv", None, None)
    (tmp_path / "two" / "a.csv").write_text("text,label\nchanged,a\n", encoding="utf-8")
    assert sources.load(tmp_path / "two" / "a.csv").fingerprint != one.fingerprint


def test_rows_in_memory_are_a_list_a_dataset_or_these_by_split() -> None:
    from datasets import Dataset, DatasetDict

    rows = [{"text": "NA", "label": "a"}, {"text": "null", "label": "b"}]
    assert texts(rows) == texts(Dataset.from_list(rows)) == ["NA", "null"]
    made = DatasetDict({"train": Dataset.from_list(rows), "test": Dataset.from_list(rows[:1])})
    assert texts({"train": rows, "test": rows[:1]}, "test") == texts(made, "test") == ["NA"]
    assert sources.load(rows).fingerprint == sources.load(made["train"]).fingerprint
    assert sources.load(rows).fingerprint != sources.load(rows[::-1]).fingerprint
    assert sources.load(rows).name == "rows in memory"


@pytest.mark.parametrize("given", [["a text", "another"], 5, [1, 2]])
def test_python_values_that_are_no_rows_are_refused(given: Any) -> None:
    refusal(given)


@pytest.mark.parametrize("name", ["data/rows.csv", "data/rows.conll", "data/rows.XLSX"])
def test_a_missing_file_of_any_format_is_no_hub_data_set(name: str) -> None:
    with pytest.raises(DataError, match=f"there is no file or folder '{name}'"):
        sources.load(name)


def test_python_rows_have_the_columns_of_all_of_them() -> None:
    rows = sources.load([{"text": "one"}, {"text": "two", "label": "a"}]).splits["train"]
    assert [dict(row) for row in rows] == [{"text": "one", "label": None}, {"text": "two", "label": "a"}]


@pytest.mark.parametrize(("source", "message"), [
    ([{}, {}], "the rows of train have no columns"), ([], "the rows of train have no columns"),
    ([{"text": "a", "number": 2**63}, {"text": "b", "number": 2**64}], "takes more than 64 bits"),
])
def test_python_rows_that_are_no_table_are_refused(source: Any, message: str) -> None:
    assert message in refusal(source).message

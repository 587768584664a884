"""Excel workbooks: cells stay what they are written as, and a sheet that is a split is one."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest

from hubtune import DataError
from hubtune.contract import registry
from hubtune.data import sources
from hubtune.errors import HubtuneError


def workbook(path: Path, sheets: dict[str, list[list[Any]]]) -> Path:
    book = pytest.importorskip("openpyxl", reason="openpyxl comes with: pip install 'hubtune[excel]'").Workbook()
    book.remove(book.active)
    for name, lines in sheets.items():
        sheet = book.create_sheet(name)
        for line in lines:
            sheet.append(line)
    book.save(path)
    return path


def test_a_sheet_is_read_as_a_csv_file_would_be(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", {"Sheet1": [
        ["text", "label"], ["NA", 1], ["007", 2.5], [None, None], ["yes", True], [None, datetime.date(2026, 1, 2)]]})
    found = sources.load(path)
    assert list(found.splits["train"]) == [
        {"text": "NA", "label": "1"}, {"text": "007", "label": "2.5"}, {"text": "yes", "label": "true"},
        {"text": None, "label": "2026-01-02T00:00:00"}]
    assert found.unsplit
    assert found.fingerprint != sources.load(workbook(tmp_path / "b.xlsx", {"Sheet1": [["text"], ["x"]]})).fingerprint


def test_sheets_and_files_are_splits_by_their_names(tmp_path: Path) -> None:
    rows = [["text", "label"], ["one", "a"]]
    path = workbook(tmp_path / "a.xlsx", {"train": rows, "dev": rows + rows[1:]})
    assert {split: len(found) for split, found in sources.load(path).splits.items()} == {"train": 1, "validation": 2}
    (tmp_path / "folder").mkdir()
    workbook(tmp_path / "folder" / "train.xlsx", {"Sheet1": rows})
    workbook(tmp_path / "folder" / "test.xlsx", {"Sheet1": rows})
    assert set(sources.load(tmp_path / "folder").splits) == {"train", "test"}


@pytest.mark.parametrize(("lines", "message"), [
    ([], "there are no rows in it"), ([["text", "text"], ["a", "b"]], "name every column once"),
    ([["text"], ["a", "b"]], "row 1 has more cells"),
])
def test_a_sheet_that_is_no_table_is_refused(tmp_path: Path, lines: list[list[Any]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        sources.load(workbook(tmp_path / "a.xlsx", {"Sheet1": lines}))


def test_a_file_that_is_no_workbook_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("openpyxl")
    (tmp_path / "a.xlsx").write_bytes(b"text,label\n")
    with pytest.raises(DataError, match="cannot be read as a workbook"):
        sources.load(tmp_path / "a.xlsx")


def test_without_the_extra_its_name_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.xlsx").write_bytes(b"")
    monkeypatch.setattr(registry, "importable", lambda name: False)
    with pytest.raises(HubtuneError, match=r"'a.xlsx' is read by the data format 'excel'.*pip install 'hubtune\[excel\]'"):
        sources.load(tmp_path / "a.xlsx")

"""Excel workbooks (.xlsx), read by openpyxl."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, time
from pathlib import Path
from typing import Any

from hubtune import DataError, DataFormat, FileData, hookimpl


@hookimpl
def hubtune_formats() -> list[type[DataFormat[Any]]]:
    return [Excel]


class Excel(DataFormat[Any]):
    """The first row of a sheet names the columns. A workbook with one sheet is one split; of several sheets, each is
    the split that its name says (train, validation, test)."""

    contract = 2
    name = "excel"
    summary = "Excel workbooks: one sheet, or a sheet per split"
    suffixes = (".xlsx", ".xlsm")
    requires = ("openpyxl",)
    extra = "hubtune[excel]"

    def read(self, paths: Sequence[Path]) -> FileData:
        """Read workbooks one after the other; their sheets of one name make one split."""
        splits: dict[str, list[dict[str, str | None]]] = {}
        for path in paths:
            sheets = read_sheets(path)
            for name, rows in sheets.items():
                splits.setdefault("train" if len(sheets) == 1 else name, []).extend(rows)
        return FileData(splits)


def read_sheets(path: Path) -> dict[str, list[dict[str, str | None]]]:
    """Read the rows of every sheet that is not empty, by its name.

    Raises:
        DataError: the file is no workbook, a header is missing or names a column twice, or there are no rows.
    """
    import openpyxl

    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except Exception as error:  # openpyxl raises whatever its zip and XML readers do
        raise DataError(f"cannot be read as a workbook: {str(error)[:200]}", where=path.name) from error
    try:
        sheets = {sheet.title: table(sheet.iter_rows(values_only=True), f"{path.name}, sheet {sheet.title}")
                  for sheet in book.worksheets}
    finally:
        book.close()
    filled = {name: rows for name, rows in sheets.items() if rows}
    if not filled:
        raise DataError("there are no rows in it.", where=path.name)
    return filled


def table(lines: Iterable[Sequence[Any]], where: str) -> list[dict[str, str | None]]:
    """Turn the cells of a sheet into rows by the names of its first line. Empty lines are skipped."""
    filled = (line for line in lines if any(cell is not None for cell in line))
    header = [text(cell) for cell in next(filled, ())]
    while header and header[-1] is None:
        header.pop()
    if None in header or len(set(header)) < len(header):
        raise DataError(f"the first row has to name every column once: {header}.", where=where)
    rows: list[dict[str, str | None]] = []
    for line in filled:
        if any(cell is not None for cell in line[len(header):]):
            raise DataError(f"row {len(rows) + 1} has more cells than the header has names.", where=where)
        rows.append({str(name): text(cell) for name, cell in zip(header, line)})
    return rows


def text(cell: Any) -> str | None:
    """A cell as a csv file has it: numbers and dates as they are written, None for an empty cell."""
    if cell is None:
        return None
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return cell.isoformat() if isinstance(cell, date | time) else str(cell)

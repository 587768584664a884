"""Files of predictions: CSV and JSON lines (also with gzip), Parquet and Excel.

A spreadsheet runs a cell of CSV that begins as a formula, so such texts get a `'` before them there.
In .xlsx the type of a cell is written, so they are texts as they are.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from hubtune.errors import MissingExtra, RecipeError, listing
from hubtune.runs.predictions.cells import without_formula
from hubtune.runs.predictions.records import PROBABILITIES, Records, unify

Progress = Callable[[int], None]
ROW_GROUP = 32768
"""Rows of a row group of Parquet, which are in memory together."""
MAX_SHEET_ROWS = 1_048_575
"""Rows that a sheet of Excel holds below its header."""
MAX_CELL = 32_767
"""Characters that a cell of Excel holds."""


def suffix_of(path: Path) -> str:
    """Return the suffix that says the format of a file; `.csv.gz` is one.

    Raises:
        RecipeError: no format has it.
        MissingExtra: its format needs a package that is not installed.
    """
    name = path.name.lower()
    found = next((suffix for suffix in WRITERS if name.endswith(suffix)), None)
    if found is None:
        raise RecipeError(f"--out writes {listing(WRITERS, 10)}, not '{path.name}'.",
                          hint=f"For example: --out {path.name.partition('.')[0] or 'predictions'}.csv")
    if found == ".xlsx":
        try:
            import openpyxl  # noqa: F401
        except ImportError:
            raise MissingExtra("an .xlsx file is written with openpyxl, which is not installed.",
                               hint="Install it: pip install 'hubtune[excel]'; or write .csv.") from None
    return found


def refuse_too_many(path: Path, rows: int | None) -> None:
    """Refuse more rows than a sheet of Excel holds."""
    if suffix_of(path) == ".xlsx" and (rows or 0) > MAX_SHEET_ROWS:
        raise RecipeError(f"a sheet of .xlsx holds {MAX_SHEET_ROWS:,} rows, not {rows:,}.",
                          hint="Write .csv or .parquet.")


def write(records: Records, path: Path, suffix: str, on_progress: Progress) -> int:
    """Write all rows to a file. Returns the number of cells that were escaped, as they began like formulas."""
    return WRITERS[suffix](records, path, on_progress)


@contextlib.contextmanager
def text_file(path: Path, newline: str | None = None) -> Iterator[IO[str]]:
    """Open a text file for writing, with gzip if its name says so; its bytes depend on the texts alone."""
    with path.open("wb") as raw, contextlib.ExitStack() as stack:
        binary: Any = raw
        if path.suffix.lower() == ".gz":
            binary = stack.enter_context(gzip.GzipFile("", "wb", fileobj=raw, mtime=0))
        text = io.TextIOWrapper(binary, encoding="utf-8", newline=newline, write_through=False)
        try:
            yield text
        finally:
            text.flush()
            text.detach()


def write_jsonl(records: Records, path: Path, on_progress: Progress) -> int:
    """Write JSON lines, with everything."""
    with text_file(path, newline="\n") as file:
        for rows in records.rows(records.kept_schema(), as_cells=False):
            file.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
            on_progress(len(rows))
    return 0


def write_csv(records: Records, path: Path, on_progress: Progress) -> int:
    """Write CSV, with what fits in cells; several labels stand in one with `|` between them."""
    kept, escaped = records.kept_schema(), 0
    with text_file(path, newline="") as file:
        writer = csv.DictWriter(file, fieldnames=names_of(records, kept))
        writer.writeheader()
        for rows in records.rows(kept, as_cells=True):
            safe = [{key: without_formula(value) for key, value in row.items()} for row in rows]
            escaped += sum(value is not row[key] for row, written in zip(rows, safe, strict=True)
                           for key, value in written.items())
            writer.writerows(safe)
            on_progress(len(rows))
    return escaped


def names_of(records: Records, kept: pa.Schema) -> list[str]:
    """Return the names of all columns of cells."""
    found: dict[str, None] = {}
    for rows in records.rows(kept, as_cells=True):
        for row in rows:
            if not row.keys() <= found.keys():
                found |= dict.fromkeys(row)
    return list(found)


def write_parquet(records: Records, path: Path, on_progress: Progress) -> int:
    """Write Parquet: the columns of the data in their own types, and all of the predictions.

    Of the probabilities only those that are columns of their own.
    """
    import pyarrow.parquet as pq

    kept = records.kept_schema()

    def plain(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{name: value for name, value in row.items() if name != PROBABILITIES} for row in entries]

    predicted = unify(table_of(plain(entries)).schema for _, entries in records.batches(kept))
    first, *others = list(predicted)
    schema = pa.schema([first, *kept, *others])
    with pq.ParquetWriter(str(path), schema, compression="zstd") as writer:
        waiting: list[pa.Table] = []
        for table, entries in records.batches(kept):
            answers = table_of(plain(entries), predicted)
            columns = {**dict(zip(kept.names, table.columns, strict=True)),
                       **dict(zip(predicted.names, answers.columns, strict=True))}
            waiting.append(pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema))
            if sum(map(len, waiting)) >= ROW_GROUP:
                writer.write_table(pa.concat_tables(waiting))
                waiting = []
            on_progress(len(entries))
        if waiting:
            writer.write_table(pa.concat_tables(waiting))
    return 0


def table_of(rows: list[dict[str, Any]], schema: pa.Schema | None = None) -> pa.Table:
    """Return entries as columns; what Arrow has no one type for is written as JSON."""
    names = schema.names if schema is not None else list(dict.fromkeys(name for row in rows for name in row))
    columns = []
    for name in names:
        values, wanted = [row.get(name) for row in rows], None if schema is None else schema.field(name).type
        try:
            columns.append(pa.array(values, wanted))
        except (pa.ArrowException, OverflowError):
            texts = [None if value is None else value if isinstance(value, str)
                     else json.dumps(value, ensure_ascii=False) for value in values]
            columns.append(pa.array(texts, pa.string()))
    return pa.Table.from_arrays(columns, names=names)


def write_xlsx(records: Records, path: Path, on_progress: Progress) -> int:
    """Write a sheet of Excel, row by row; longer texts than a cell holds are cut."""
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    kept = records.kept_schema()
    names, count = names_of(records, kept), 0
    book = Workbook(write_only=True)
    sheet = book.create_sheet("predictions")

    def made(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        found = WriteOnlyCell(sheet, ILLEGAL_CHARACTERS_RE.sub("", value)[:MAX_CELL])
        found.data_type = "s"  # a text, also where it begins as a formula or an error does
        return found

    sheet.append([made(name) for name in names])
    for rows in records.rows(kept, as_cells=True):
        count += len(rows)
        refuse_too_many(path, count)
        for row in rows:
            sheet.append([made(row.get(name)) for name in names])
        on_progress(len(rows))
    book.save(path)
    return 0


WRITERS: dict[str, Callable[[Records, Path, Progress], int]] = {
    ".csv": write_csv, ".csv.gz": write_csv, ".jsonl": write_jsonl, ".jsonl.gz": write_jsonl,
    ".parquet": write_parquet, ".xlsx": write_xlsx,
}
"""By suffix, what writes a file."""

"""Tables of text (csv, tsv, txt): each cell is kept as text.

Parsed by Python's `csv`, strictly: other readers close a quote that stays open, join lines or drop
cells without a word, and do not know the line. The cells that a row lacks at its end are empty, as
in pandas, and are reported.
"""

from __future__ import annotations

import contextlib
import csv
import io
import re
import shlex
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from hubtune.data.files.limits import MAX_COLUMNS, MAX_ROW
from hubtune.data.files.lines import RowLines
from hubtune.data.files.text import current, open_text
from hubtune.data.formats.arrow_table import ArrowTable
from hubtune.errors import DataError, listing

DELIMITERS = ",;\t|"
LOOKED_AT = 20
"""Rows that the delimiter is chosen by."""
BATCH = 4096
BATCH_SIZE = 1 << 24
"""Rows and characters of a table that become Arrow arrays together."""
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
"""The first line of some tables of Excel, which names the delimiter."""


@contextlib.contextmanager
def large_cells() -> Iterator[None]:
    """Let `csv` read cells up to `MAX_ROW`; its own limit is 131,072 characters."""
    before = csv.field_size_limit(MAX_ROW)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def read_tables(paths: Sequence[Path]) -> tuple[Any, RowLines]:
    """Read tables with the same header as one `datasets.Dataset`, and the line of each row.

    Raises:
        DataError: a table that is not whole, with the row and its line.
    """
    lines, table, names = RowLines(), None, None
    with large_cells():
        for path in paths:
            own = Layout(path)
            if names is None:
                names, table = own.names, ArrowTable(own.names)
            elif own.names != names:
                raise DataError(
                    f"its columns {own.names} differ from those of {paths[0].name}: {names}.",
                    where=path.name)
            lines.begin_file(path.name)
            assert table is not None
            for batch in own.batches(lines):
                table.add(batch)
    if table is None or not table.rows:
        raise DataError("there are no rows in it.", where=listing(path.name for path in paths))
    return table.dataset(), lines


class Layout:
    """Layout of a table: its delimiter, its header, and whether quotes enclose cells."""

    def __init__(self, path: Path) -> None:
        """Read the header. Raises DataError without a usable one."""
        self.path = path
        with open_text(path) as file:
            first = file.readline()
            named = SEPARATOR_LINE.fullmatch(first)
            self.skipped = 1 if named else 0
            self.delimiter = named[1] if named else find_delimiter(path, first, file)
        self.quoting: Any = csv.QUOTE_MINIMAL
        if self.delimiter == "\t" and quotes_are_text(path, self.skipped):
            self.quoting = csv.QUOTE_NONE
            current().notes.append(
                f"{path.name}: its quotes are read as text, since they do not enclose cells.")
        _, header = next(self.rows(), (0, []))
        self.names = name_columns(header, path)

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the line and the cells of each row that is not empty, the header first."""
        with open_text(self.path) as file:
            for _ in range(self.skipped):
                file.readline()
            reader = csv.reader(file, delimiter=self.delimiter, quoting=self.quoting, strict=True)
            line, number = 1 + self.skipped, 0
            while True:
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    last = reader.line_num + self.skipped
                    raise self.broken(str(error), number, line, last) from None
                if cells:
                    yield line, cells
                    number += 1
                line = reader.line_num + self.skipped + 1

    def batches(self, lines: RowLines) -> Iterator[list[list[str]]]:
        """Yield rows in batches, without the header; add their lines, and rows with too few cells, to `lines`."""
        width, batch, size = len(self.names), list[list[str]](), 0
        found = self.rows()
        _, header = next(found)
        for line, cells in found:
            if len(cells) > width or cells[0][:1] == "\ufeff" or (cells == header and width > 1):
                raise self.misfit(cells, header, lines.count - lines.first_rows[-1] + 1, line)
            if len(cells) < width:
                lines.short.append(lines.count)
                cells += [""] * (width - len(cells))
            lines.append(line)
            batch.append(cells)
            size += sum(map(len, cells))
            if len(batch) == BATCH or size > BATCH_SIZE:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def broken(self, reason: str, number: int, line: int, last: int) -> DataError:
        """Return the error of a row that `csv` cannot read. number: of the row, 0 for the header."""
        row = f"row {number}" if number else "the header"
        at = f"line {line}" if last <= line else f"lines {line} to {last}"
        if "end of data" in reason:
            message = f"a quote that opens in {row} (line {line}) is never closed."
        elif "field limit" in reason:
            message = f"a cell of {row} ({at}) has more than {MAX_ROW:,} characters."
            return DataError(message, where=self.path.name, hint=(
                "A quote that is not closed takes in the lines after it; else shorten the text."))
        else:
            message = f"a quote closes in the middle of a cell, in {row} ({at})."
        return DataError(message, where=self.path.name, hint=(
            'A cell with a quote, a separator or a line end stands in quotes, with each quote of '
            'its own twice: "say ""hi"", please"'))

    def misfit(self, cells: list[str], header: list[str], number: int, line: int) -> DataError:
        """Return the error of a row that does not fit the header. number: of the row, from 1."""
        if cells[0][:1] == "\ufeff" or cells == header:
            return DataError(
                f"row {number} (line {line}) is the beginning of another file: "
                f"{listing(cells, 4)!r}.", where=self.path.name,
                hint="Files that were joined have their headers in the middle. Remove that line, or "
                "give the files as a pattern: --data 'part*.csv'")
        sign = {"\t": "tab"}.get(self.delimiter, self.delimiter)
        return DataError(
            f"row {number} (line {line}) has {len(cells)} cells, but the header has "
            f"{len(self.names)}: {' | '.join(cells)[:80]!r}.", where=self.path.name,
            hint=f"Cells are separated by '{sign}'. A cell that contains one stands in quotes.")


def find_delimiter(path: Path, first: str, file: io.TextIOWrapper) -> str:
    """Choose the delimiter that gives the first rows the same number of cells, as many as can be.

    first, file: the first line, and the file after it.
    """
    if path.suffix.lower() in (".tsv", ".txt"):
        return "\t"
    lines = [first, *islice(file, LOOKED_AT)]
    widths = {}
    for sign in DELIMITERS:
        with contextlib.suppress(csv.Error):
            rows = [cells for cells in csv.reader(lines, delimiter=sign) if cells]
            complete = rows[:-1] if len(rows) > 2 else rows  # the last may go on after these lines
            found = {len(cells) for cells in complete}
            widths[sign] = max(found) if len(found) == 1 else 0
    best = max(DELIMITERS, key=lambda sign: widths.get(sign, 0))
    return best if widths.get(best, 0) > 1 else max(DELIMITERS, key=first.count)


def quotes_are_text(path: Path, skipped: int) -> bool:
    """Tell whether the quotes of a table with tabs do not enclose cells, as in many corpora.

    So it is where each line has as many cells as the header, but quotes, where they count, are
    broken or join lines.
    """
    with open_text(path) as file:
        reader = csv.reader(file, delimiter="\t", strict=True)
        rows = 0
        try:
            for _ in reader:
                rows += 1
            if rows == reader.line_num:
                return False
        except csv.Error:
            pass
    with open_text(path) as file:
        widths = {line.count("\t") for line in islice(file, skipped, None) if line.strip("\r\n")}
    return len(widths) == 1


def name_columns(header: Sequence[str], path: Path) -> list[str]:
    """Return the names of columns; one without a name is called `column 3` by its place.

    Raises:
        DataError: no header, a name twice, too many, or a file that is no table.
    """
    if len(header) > MAX_COLUMNS:
        raise DataError(f"it has {len(header):,} columns; at most {MAX_COLUMNS:,} are read.",
                        where=path.name, hint="Keep the columns of texts and labels alone.")
    stripped = [name.strip() for name in header]
    if not any(stripped):
        raise DataError(f"there is no header line: {list(header)}.", where=path.name,
                        hint="Name the columns in the first line, such as: text,label")
    if re.match(r'\[?\s*\{\s*"', ",".join(stripped[:2])):
        stem = shlex.quote(path.stem)
        raise DataError("it looks like JSON, not like a table.", where=path.name,
                        hint=f"Give it its own suffix: mv {shlex.quote(path.name)} {stem}.jsonl")
    names = [name or f"column {number}" for number, name in enumerate(stripped, 1)]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(
        set(names)) < len(names) else []
    if twice:
        raise DataError(f"the header repeats {listing(twice)}: {listing(names, 20)}.",
                        where=path.name, hint="Give each column a name of its own.")
    return names

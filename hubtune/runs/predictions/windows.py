"""The rows to predict, a window at a time: of data that is loaded, or of standard input as it comes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any

import pyarrow as pa

from hubtune.contract import Task
from hubtune.data import splits
from hubtune.data.columns import holds_labels, label_names, normalized_name
from hubtune.data.data_splits import DataSplits
from hubtune.data.files import locations
from hubtune.errors import DataError, did_you_mean, listing
from hubtune.runs.predictions.computing import as_rows, drop_labels

WINDOW = 2048
"""Rows of a window: those of similar lengths are batched together, and it is kept as a whole."""
STREAMED = 64
"""Rows of standard input that are predicted together where they are printed as they come."""


@dataclass(frozen=True)
class Window:
    """Consecutive rows under the task's roles, without labels.

    first: number of the first row, from 0. kept: columns that are written beside the predictions.
    seen: hash of a stream up to the window's end.
    """

    first: int
    rows: Any
    kept: pa.Table | None
    seen: str = ""


@dataclass(frozen=True)
class Reading:
    """Settings to read rows with. recorded: columns by role in training; chosen: those the user set.

    keep: names of columns that are kept, or "all". say: gets a sentence on how files were read.
    """

    task: Task[Any]
    recorded: Mapping[str, str]
    chosen: Mapping[str, str]
    keep: Sequence[str] | str = ()
    split: str | None = None
    say: Callable[[str], None] = lambda text: None

    def load(self, data: Any, chosen: Mapping[str, str] | None = None) -> DataSplits:
        """Load the rows of one split under the task's roles."""
        return splits.evaluation_split(
            as_rows(data, self.task), self.split, self.task.columns, self.recorded,
            needs_labels=False, say=self.say, chosen=self.chosen if chosen is None else chosen)

    def kept(self, rows: Any) -> pa.Table | None:
        """Return the kept columns of rows under the data's own names, with the names of labels."""
        names = [name for name in rows.column_names if self.keep == "all" or name in self.keep]
        if not names:
            return None
        table = rows.select_columns(names).with_format("arrow")[:]
        for place, name in enumerate(names):
            feature = rows.features[name]
            if holds_labels(feature):
                values = [label_names(feature, value) for value in table[name].to_pylist()]
                table = table.set_column(place, name, pa.array(values))
            elif hasattr(feature, "decode_example"):  # an image or a sound, of which the path is kept
                values = [value and value.get("path") for value in table[name].to_pylist()]
                table = table.set_column(place, name, pa.array(values, pa.string()))
        return table.replace_schema_metadata(None)

    def refuse_missing(self, names: Sequence[str]) -> None:
        """Refuse to keep columns that the data lacks."""
        wanted = [] if self.keep == "all" else [name for name in self.keep if name not in names]
        if wanted:
            raise DataError(
                f"there is no column {listing(wanted)} to keep.{did_you_mean(wanted[0], names)} "
                f"Columns: {listing(names, 30)}.", hint="Keep all with: --keep all")


class LoadedRows:
    """The windows of data that is loaded: files, folders, data sets of the Hub, rows in memory."""

    def __init__(self, data: Any, reading: Reading) -> None:
        found = reading.load(data)
        self.reading, self.source = reading, found.source_rows
        self.rows = next(iter(found.splits.values()))
        reading.refuse_missing(self.source.column_names)
        self.total: int | None = len(self.rows)
        self.identity: dict[str, Any] = {"data": found.fingerprint, "columns": found.columns,
                                         "split": next(iter(found.splits))}

    def windows(self, first: int, seen: str) -> Iterator[Window]:
        """Yield the windows from a row on."""
        for start in range(first, len(self.rows), WINDOW):
            chosen = range(start, min(start + WINDOW, len(self.rows)))
            rows = drop_labels(self.rows.select(chosen), self.reading.task)
            yield Window(start, rows, self.reading.kept(self.source.select(chosen)))


class StreamedRows:
    """The windows of standard input: a text per line, or a row per line as JSON."""

    def __init__(self, source: str, reading: Reading) -> None:
        self.source, self.reading = source, reading
        self.total: int | None = None
        self.identity: dict[str, Any] = {"data": "standard input"}
        self.digest, self.number = hashlib.sha256(), 0
        self.are_rows: bool | None = None
        self.chosen: Mapping[str, str] | None = None

    def windows(self, first: int, seen: str, as_it_comes: bool = False) -> Iterator[Window]:
        """Yield the windows from a row on, after those before it were read and compared.

        Args:
            seen: the hash of the rows before the first.
            as_it_comes: in smaller windows; each line of a terminal is one.

        Raises:
            DataError: the rows before it differ from those that were predicted.
        """
        with locations.open_descriptor(self.source) as file:
            size = (1 if file.isatty() else STREAMED) if as_it_comes else WINDOW
            lines = self.lines(file)
            count = sum(1 for _ in islice(lines, first))
            if first and (count < first or self.digest.hexdigest() != seen):
                raise DataError(
                    f"its first {first:,} lines are not those that were predicted before.",
                    where="standard input",
                    hint="Give the same rows again, or delete the folder that ends in .partial.")
            while batch := list(islice(lines, size)):
                yield self.window(first, batch)
                first += len(batch)

    def lines(self, file: IO[bytes]) -> Iterator[tuple[int, str]]:
        """Yield the lines with their numbers, from 1; of JSON rows those that are not blank."""
        for line in file:
            self.number += 1
            try:
                text = line.decode("utf-8-sig" if self.number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError:
                raise DataError(f"line {self.number} is not UTF-8.", where="standard input",
                                hint="Convert it first: iconv -f ENCODING -t UTF-8") from None
            if self.are_rows is None:
                self.are_rows = text.lstrip().startswith("{")
                self.note_header(text)
            if self.are_rows and not text.strip():
                continue
            self.digest.update(line)
            yield self.number, text

    def note_header(self, line: str) -> None:
        """Say so if the first text looks like the header of a table."""
        names = {normalized_name(name) for column in self.reading.task.columns
                 for name in (column.role, *column.names)} | set(self.reading.recorded.values())
        if all(normalized_name(cell) in names for cell in re.split("[,;\t]", line)):
            self.reading.say(f"the first line, '{line}', looks like the header of a table, but is read "
                             "as a text. A table from standard input is read with: --data -")

    def window(self, first: int, batch: list[tuple[int, str]]) -> Window:
        """Make a window of lines; the first one chooses the columns for all."""
        seen = self.digest.hexdigest()
        data = [self.row(*found) for found in batch] if self.are_rows else [text for _, text in batch]
        try:
            found = self.reading.load(data, self.chosen)
        except DataError as error:
            if first:
                error.message = f"after row {first:,}: {error.message}"
            raise
        if self.chosen is None:
            self.chosen = found.columns
            self.reading.refuse_missing(found.source_rows.column_names)
        rows = drop_labels(next(iter(found.splits.values())), self.reading.task)
        return Window(first, rows, self.reading.kept(found.source_rows), seen)

    @staticmethod
    def row(number: int, text: str) -> dict[str, Any]:
        """Parse a row of JSON."""
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"line {number} is not JSON: {' '.join(str(error).split())[:200]}.",
                            where="standard input") from None
        if not isinstance(row, dict):
            raise DataError(f"line {number} is {type(row).__name__}, not an object with a row's columns.",
                            where="standard input", hint='For example: {"text": "What a lovely day"}')
        return row


def open_rows(data: Any, reading: Reading) -> LoadedRows | StreamedRows:
    """Open the rows of a source; `-` is read as it comes."""
    return StreamedRows(data, reading) if data == "-" else LoadedRows(data, reading)

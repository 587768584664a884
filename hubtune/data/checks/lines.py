"""Lines of files: the line on which a row of a table begins, found only for rows that are shown."""

from __future__ import annotations

import csv
import gzip
from array import array
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from hubtune.data import sources
from hubtune.data.formats import lookup
from hubtune.errors import DataError

BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
CSV, JSON_LINES = (".csv", ".tsv"), (".jsonl",)


class LineIndex:
    """The first lines of the rows of a table, read from the file as far as rows are asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.starts = array("q")
        self.reader: Iterator[int] | None = None

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        """Return the lines, from 1, of rows, from 0; none if the file cannot be read so."""
        if not numbers:
            return []
        try:
            if self.reader is None:
                self.reader = first_lines(self.path)
            wanted = max(numbers) + 1 - len(self.starts)
            self.starts.extend(islice(self.reader, max(0, wanted)))
        except (OSError, UnicodeError, csv.Error, DataError):
            return []
        found = [self.starts[number] for number in numbers if number < len(self.starts)]
        return found if len(found) == len(numbers) else []


def first_lines(path: Path) -> Iterator[int]:
    """Yield the line, from 1, on which each row of a csv or jsonl file begins."""
    name = path.name.lower().removesuffix(".gz")
    with open_text(path) as file:
        if name.endswith(JSON_LINES):
            yield from (number for number, line in enumerate(file, 1) if line.strip())
            return
        head = file.readline()
        file.seek(0)
        delimiter = "\t" if name.endswith(".tsv") else max(",;\t|", key=head.count)
        csv.field_size_limit(2**31 - 1)
        rows, last, is_header = csv.reader(file, delimiter=delimiter), 0, True
        for cells in rows:
            start, last = last + 1, rows.line_num
            if not any(cell.strip() for cell in cells) and len(cells) < 2:
                continue  # an empty line is no row
            if not is_header:
                yield start
            is_header = False


def open_text(path: Path) -> Any:
    """Open a file as text whose lines, quotes and delimiters are right whatever its encoding.

    These are ASCII in every encoding but UTF-16, so the letters need not be right.
    """
    opened: Any = gzip.open if path.suffix.lower() == ".gz" else open
    with opened(path, "rb") as file:
        encoding = BYTE_ORDER_MARKS.get(file.read(2), "latin-1")
    return opened(path, "rt", encoding=encoding, newline="")


def line_indexes(source: Any) -> dict[str, LineIndex]:
    """Return the line index of each split that is one csv or jsonl file."""
    if not isinstance(source, str | Path) or not str(source):
        return {}
    path = Path(source).expanduser()
    files: dict[str, list[Path]] = {"train": [path]} if path.is_file() else {}
    if path.is_dir() and lookup.find_format(path) is None:
        files = sources.files_by_split(path)
    return {split: LineIndex(paths[0]) for split, paths in files.items()
            if len(paths) == 1 and has_lines(paths[0])}


def has_lines(path: Path) -> bool:
    """Tell if every row of a file begins on a line of its own."""
    return path.name.lower().removesuffix(".gz").endswith((*CSV, *JSON_LINES))

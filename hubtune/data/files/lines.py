"""Line numbers: where in its file each row begins, for messages."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence

from hubtune.errors import listing


class RowLines:
    """The file and the line, from 1, where each row of a split begins.

    Kept as the difference to the row's number, at the rows where it changes: a table without line
    ends within cells has one.

    Attributes:
        short: rows, from 0, with fewer cells than the header.
    """

    def __init__(self) -> None:
        self.count = 0
        self.starts, self.offsets = array("q"), array("q")
        self.files: list[str] = []
        self.first_rows = array("q")
        self.short = array("q")

    def begin_file(self, name: str) -> None:
        """Say that the rows to follow are from another file."""
        self.files.append(name)
        self.first_rows.append(self.count)

    def append(self, line: int) -> None:
        """Add the line of the next row."""
        offset = line - self.count
        if not self.offsets or self.offsets[-1] != offset:
            self.starts.append(self.count)
            self.offsets.append(offset)
        self.count += 1

    def forget(self, count: int) -> None:
        """Forget all rows but the first `count`, which are those of earlier files."""
        self.count = count
        while self.starts and self.starts[-1] >= count:
            self.starts.pop()
            self.offsets.pop()

    def __call__(self, rows: Sequence[int]) -> list[int]:
        """Return the lines of rows, from 0; none where the split is not read from one file."""
        return [self.line(row) for row in rows] if len(self.files) == 1 else []

    def line(self, row: int) -> int:
        """Return the line of a row. row: from 0."""
        return self.offsets[bisect_right(self.starts, row) - 1] + row

    def file(self, row: int) -> str:
        """Return the name of the file of a row. row: from 0."""
        return self.files[bisect_right(self.first_rows, row) - 1]

    def describe(self, rows: Sequence[int]) -> str:
        """Format the lines of some rows: `lines 5, 9 of a.csv`. rows: from 0."""
        by_file: dict[str, list[int]] = {}
        for row in rows:
            by_file.setdefault(self.file(row), []).append(self.line(row))
        return "; ".join(f"line{'s' if len(lines) > 1 else ''} {listing(lines)} of {name}"
                         for name, lines in by_file.items())

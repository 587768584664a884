"""Streaming: a Hub data set that is read during training, with only a window of it in memory.

The first pass over the rows counts them and keeps their labels, which is all that must be known
before training. Training then reads window after window, shuffling rows within each.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from hubtune.contract import Base, Row, Rows, Task
from hubtune.data.dataset import EncodedDataset
from hubtune.data.encoding import encode
from hubtune.data.example_store import ExampleStore
from hubtune.data.row_batches import ROW_BATCH_SIZE, LazyColumn

if TYPE_CHECKING:
    from datasets import IterableDataset

HEAD = 100
"""Number of rows that are read to determine the columns."""


class Reader:
    """A resumable iterator over a data set. at: the number of the next row."""

    def __init__(self, source: IterableDataset, mark: Mapping[str, Any]) -> None:
        self.source, self.at = copy.deepcopy(source), int(mark["at"])
        if self.at:
            self.source.load_state_dict(mark["state"])
        self.rows = iter(self.source)

    def mark(self) -> dict[str, Any]:
        """Return the position as JSON, to continue from."""
        return {"at": self.at, "state": self.source.state_dict() if self.at else None}

    def read(self, count: int | None = None) -> Iterator[Any]:
        """Yield `count` rows, or all remaining ones."""
        for row in islice(self.rows, count):
            self.at += 1
            yield row


BEGIN: dict[str, Any] = {"at": 0, "state": None}


class Stream(Sequence[Row]):
    """The rows of a streamed split.

    Args:
        head: the first rows, as a `datasets.Dataset`.
        make: transforms a row.
        kept: columns that are kept in memory when rows are counted.
        first, last: range of rows within the data set; None: to the end.
    """

    def __init__(
        self, source: IterableDataset, head: Any, make: Callable[[Any], Row] = dict,
        kept: Sequence[str] = (), first: int = 0, last: int | None = None,
    ) -> None:
        self.source, self.head, self.make, self.first, self.last = source, head, make, first, last
        self.kept = tuple(kept)
        self.columns: Sequence[Row] = ()
        self.counted: int | None = None
        self.reader = Reader(source, BEGIN)
        self.marked = BEGIN

    @property
    def column_names(self) -> list[str]:
        """Column names, as `datasets` names the attribute."""
        return list(self.head.column_names)

    def map(self, head: Any, make: Callable[[Any], Row], kept: Sequence[str]) -> Stream:
        """Return the same rows with another transformation."""
        return Stream(self.source, head, make, kept, self.first, self.last)

    def row_range(self, first: int, last: int) -> Stream:
        """Return consecutive rows as a stream of their own."""
        found = Stream(self.source, self.head, self.make, (), self.first + first, self.first + last)
        found.counted = last - first
        return found

    def select_columns(self, roles: Sequence[str]) -> Rows:
        """Select columns; kept ones are not read from the source again."""
        if self.counted is None or not set(roles) <= set(self.kept):
            return self
        return LazyColumn(self.columns, lambda row: {role: row[role] for role in roles})

    def __len__(self) -> int:
        if self.counted is None:
            for _ in self:
                pass
        assert self.counted is not None
        return self.counted

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            start = index.start or 0
            return self.read_range(start, (len(self) if index.stop is None else index.stop) - start)
        index = index + len(self) if index < 0 else index
        if not self.first and index < len(self.head):
            return self.head[index]
        return self.read_range(index, 1)[0]

    def __iter__(self) -> Iterator[Row]:
        reader, count, columns = Reader(self.source, BEGIN), 0, ExampleStore()
        for _ in reader.read(self.first):
            pass
        rows = map(self.make, reader.read(None if self.last is None else self.last - self.first))
        while batch := list(islice(rows, ROW_BATCH_SIZE)):
            if self.counted is None:
                columns.extend([{role: row[role] for role in self.kept} for row in batch])
            count += len(batch)
            yield from batch
        if self.counted is None:
            self.counted = count
            columns.close()
            self.columns = columns

    def read_range(self, start: int, count: int) -> list[Row]:
        """Read consecutive rows; continues the last read where they lie ahead of it."""
        at = self.first + start
        if self.reader.at > at:
            self.reader = Reader(self.source, BEGIN)
        for _ in self.reader.read(at - self.reader.at):
            pass
        self.marked = self.reader.mark()
        return [self.make(row) for row in self.reader.read(min(count, len(self) - start))]

    def restore(self, mark: Mapping[str, Any]) -> None:
        """Continue reading at the position of another process."""
        self.reader = Reader(self.source, mark)


@dataclass
class StreamWindows:
    """The examples of a stream, one window at a time.

    Attributes:
        length: maximum length of examples.
        size: rows per window.
        opened: number and examples of the current window.
    """

    task: Task[Any]
    stream: Stream
    base: Base
    length: int | None
    size: int
    opened: tuple[int, EncodedDataset]

    @property
    def rows(self) -> int:
        """Total number of rows in the stream."""
        return len(self.stream)

    def open(self, number: int) -> EncodedDataset:
        """Return the examples of a window."""
        if number != self.opened[0]:
            start = number * self.size
            rows = self.stream.read_range(start, self.size)
            found = encode(self.task, rows, self.base, self.length)
            self.opened = number, replace(found, first=start)
        return self.opened[1]

    def position(self) -> dict[str, Any]:
        """Return the stream's position for checkpoints; a resumed run continues there."""
        return dict(self.stream.marked)


def open_stream(source: IterableDataset) -> Stream:
    """Wrap a data set that `datasets` streams."""
    return Stream(source, to_dataset(source.take(HEAD)))


def to_dataset(rows: IterableDataset | Stream, count: int | None = None) -> Any:
    """Load streamed rows, all or the first `count`, into a `datasets.Dataset` in memory."""
    from datasets import Dataset

    return Dataset.from_list(list(islice(rows, count)), features=getattr(rows, "features", None))

"""A data set of the Hub that is read while it is learned from: neither kept on disk nor in memory, but for a window of it.

The first time that its rows are gone through, they are counted and their labels kept, so that one pass says all that has to
be known before training. Then training reads window after window; the rows of one are shuffled together.
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
from hubtune.data.row_batches import ROW_BATCH_SIZE, Cells

if TYPE_CHECKING:
    from datasets import IterableDataset

HEAD = 100
"""Rows that are read to know the columns."""


class Reader:
    """One way through a data set, which can be begun again from a place that it was at. at: the row that comes next."""

    def __init__(self, source: IterableDataset, mark: Mapping[str, Any]) -> None:
        self.source, self.at = copy.deepcopy(source), int(mark["at"])
        if self.at:
            self.source.load_state_dict(mark["state"])
        self.rows = iter(self.source)

    def mark(self) -> dict[str, Any]:
        """Where it is, as JSON."""
        return {"at": self.at, "state": self.source.state_dict() if self.at else None}

    def read(self, count: int | None = None) -> Iterator[Any]:
        """So many rows, or all that are left."""
        for row in islice(self.rows, count):
            self.at += 1
            yield row


BEGIN: dict[str, Any] = {"at": 0, "state": None}


class Stream(Sequence[Row]):
    """The rows of a streamed split. head: its first rows, as `datasets` has them; make: what becomes of a row; kept: the
    columns that are kept when rows are counted; first, last: where it begins and ends in the data set."""

    def __init__(self, source: IterableDataset, head: Any, make: Callable[[Any], Row] = dict, kept: Sequence[str] = (),
                 first: int = 0, last: int | None = None) -> None:
        self.source, self.head, self.make, self.first, self.last = source, head, make, first, last
        self.kept = tuple(kept)
        self.columns: Sequence[Row] = ()
        self.counted: int | None = None
        self.reader = Reader(source, BEGIN)
        self.marked = BEGIN

    @property
    def column_names(self) -> list[str]:
        """As `datasets` says it."""
        return list(self.head.column_names)

    def made(self, head: Any, make: Callable[[Any], Row], kept: Sequence[str]) -> Stream:
        """The same rows, otherwise made."""
        return Stream(self.source, head, make, kept, self.first, self.last)

    def between(self, first: int, last: int) -> Stream:
        """Some of the rows, that follow each other."""
        found = Stream(self.source, self.head, self.make, (), self.first + first, self.first + last)
        found.counted = last - first
        return found

    def select_columns(self, roles: Sequence[str]) -> Rows:
        """Only some columns: those that are kept are not read again."""
        if self.counted is None or not set(roles) <= set(self.kept):
            return self
        return Cells(self.columns, lambda row: {role: row[role] for role in roles})

    def __len__(self) -> int:
        if self.counted is None:
            for _ in self:
                pass
        assert self.counted is not None
        return self.counted

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.part(index.start or 0, (len(self) if index.stop is None else index.stop) - (index.start or 0))
        index = index + len(self) if index < 0 else index
        return self.head[index] if not self.first and index < len(self.head) else self.part(index, 1)[0]

    def __iter__(self) -> Iterator[Row]:
        reader, count, columns = Reader(self.source, BEGIN), 0, ExampleStore()
        for _ in reader.read(self.first):
            pass
        rows = map(self.make, reader.read(None if self.last is None else self.last - self.first))
        while piece := list(islice(rows, ROW_BATCH_SIZE)):
            if self.counted is None:
                columns.extend([{role: row[role] for role in self.kept} for row in piece])
            count += len(piece)
            yield from piece
        if self.counted is None:
            self.counted = count
            columns.close()
            self.columns = columns

    def part(self, start: int, count: int) -> list[Row]:
        """Rows that follow each other: read on, if they are ahead of those that were read last."""
        at = self.first + start
        if self.reader.at > at:
            self.reader = Reader(self.source, BEGIN)
        for _ in self.reader.read(at - self.reader.at):
            pass
        self.marked = self.reader.mark()
        return [self.make(row) for row in self.reader.read(min(count, len(self) - start))]

    def restore(self, mark: Mapping[str, Any]) -> None:
        """Go on reading where another process was."""
        self.reader = Reader(self.source, mark)


@dataclass
class StreamWindows:
    """The examples of a stream, a window at a time. length: what rows are cut at; size: rows of a window; opened: the one
    that is at hand, and its number."""

    task: Task[Any]
    stream: Stream
    base: Base
    length: int | None
    size: int
    opened: tuple[int, EncodedDataset]

    @property
    def rows(self) -> int:
        """All rows of the stream."""
        return len(self.stream)

    def open(self, number: int) -> EncodedDataset:
        """The examples of a window."""
        if number != self.opened[0]:
            start = number * self.size
            found = encode(self.task, self.stream.part(start, self.size), self.base, self.length)
            self.opened = number, replace(found, first=start)
        return self.opened[1]

    def position(self) -> dict[str, Any]:
        """Where the stream is, for checkpoints: so that a run that goes on need not read all that came before."""
        return dict(self.stream.marked)


def of(source: IterableDataset) -> Stream:
    """The rows of a data set that `datasets` streams."""
    return Stream(source, in_memory(source.take(HEAD)))


def in_memory(rows: IterableDataset | Stream, count: int | None = None) -> Any:
    """Rows that are streamed, all or the first, as `datasets` has them in memory."""
    from datasets import Dataset

    return Dataset.from_list(list(islice(rows, count)), features=getattr(rows, "features", None))

"""From rows to examples: every row is encoded once, cut at one length, and what was cut is counted.

Rows are read and encoded some at a time, so that neither all rows nor all examples have to fit in memory.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubtune.contract import Base, Example, Rows, Task
from hubtune.data.arrays import Place
from hubtune.data.column_store import Values
from hubtune.data.dataset import EncodedDataset, Examples, by_row
from hubtune.data.row_batches import row_batches
from hubtune.errors import BrokenPlugin

OUTLIER = 2.0
"""Without a length from the user, only rows longer than this many times the 99th percentile are cut."""
Advance = Callable[[int], None]
"""Told how many rows have been encoded."""


@dataclass(frozen=True)
class Table:
    """What is known of encoded rows: how many examples each has; and of each example its size, its length and its group."""

    counts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    lengths: NDArray[np.int64]
    groups: NDArray[np.int64] | None

    def owner(self) -> NDArray[np.int64]:
        """The row of each example."""
        return np.repeat(np.arange(len(self.counts)), self.counts)


class Encoder:
    """Rows of one split on their way to examples: all of them as they are, and then those that are too long once more."""

    def __init__(self, task: Task[Any], rows: Rows, base: Base, advance: Advance) -> None:
        self.task, self.rows, self.base, self.advance = task, rows, base, advance
        self.place = Place()
        self.values = Values(self.place)
        self.grouped = type(task).sampling_key is not Task.sampling_key
        self.measured = type(task).length is not Task.length
        self.table = self.encoded(None)
        self.at: NDArray[np.int64] | None = None

    def encoded(self, limit: int | None, rows: Sequence[int] | None = None) -> Table:
        """Make examples of all rows, or of some, that are cut at the limit."""
        base, found = replace(self.base, max_length=limit), []
        gc.freeze()  # else the collector goes through all modules and models again and again: a third of the time
        try:
            for piece in row_batches(self.rows, rows):
                found.append(self.added([list(examples) for examples in self.task.encode(piece, base)]))
                self.advance(len(piece))
        finally:
            gc.unfreeze()
        empty = np.zeros(0, np.int64)
        counts, sizes, longs, among = (np.concatenate(column) for column in zip([empty] * 4, *found, strict=True))
        return Table(counts, sizes, longs if self.measured else sizes, among if self.grouped else None)

    def added(self, lists: list[list[Example]]) -> list[NDArray[np.int64]]:
        """Store the examples of some rows; returns the columns of their table."""
        task, examples = self.task, [example for one in lists for example in one]
        self.values.extend(examples)
        lengths = [task.length(example) for example in examples] if self.measured else []
        groups = [task.sampling_key(example) for example in examples] if self.grouped else []
        columns = ([len(one) for one in lists], [task.num_tokens(example) for example in examples], lengths,
                   [-1 if group is None else group for group in groups])
        return [np.array(column, np.int64) for column in columns]

    def cut(self, limit: int) -> None:
        """Encode rows that are longer anew."""
        old, owner = self.table, self.table.owner()
        long = np.unique(owner[old.lengths > limit])
        if not len(long):
            return
        new = self.encoded(limit, long.tolist())
        if self.task.unit == "tokens" and new.lengths.max() > limit:
            raise BrokenPlugin(
                f"`encode` of the task '{self.task.name}' made an example of {new.lengths.max()} tokens, and base.max_length was {limit}.",
                hint="`encode` has to cut there, as a processor does with truncation=True, max_length=base.max_length.",
            )
        counts, anew = old.counts.copy(), np.zeros(len(old.counts), bool)
        counts[long], anew[long] = new.counts, True
        added = np.repeat(anew, counts)
        at = np.zeros(len(added), np.int64)
        at[added] = len(old.sizes) + np.arange(len(new.sizes))
        at[~added] = np.flatnonzero(~anew[owner])

        def both(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
            return np.concatenate([one, other])[at]

        sizes, lengths = both(old.sizes, new.sizes), both(old.lengths, new.lengths)
        groups = None if old.groups is None or new.groups is None else both(old.groups, new.groups)
        self.table, self.at = Table(counts, sizes, lengths, groups), at

    def done(self) -> EncodedDataset:
        """The examples, to be read."""
        self.place.close()
        table = self.table
        return EncodedDataset(Examples(self.values, self.at), table.owner(), table.sizes, len(table.counts), table.lengths, table.groups)


def encode(
    task: Task[Any], rows: Rows, base: Base, limit: int | None, advance: Advance = lambda rows: None
) -> EncodedDataset:
    """All examples of the rows, those longer than the limit cut. Only these are encoded a second time."""
    encoder = Encoder(task, rows, base, advance)
    if limit is not None:
        encoder.cut(limit)
    return encoder.done()


def picked(examples: Sequence[Example], items: NDArray[np.int64]) -> Sequence[Example]:
    """Some of the examples."""
    return examples.some(items) if isinstance(examples, Examples) else [examples[item] for item in items]


def some(encoded: EncodedDataset, rows: Sequence[int]) -> EncodedDataset:
    """The examples of some of the rows, in the order of these."""
    lists = encoded.examples_by_row()
    items = np.array([item for row in rows for item in lists[row]], np.int64)
    owner = np.repeat(np.arange(len(rows)), [len(lists[row]) for row in rows])
    lengths, groups = (None if table is None else table[items] for table in (encoded.lengths, encoded.groups))
    return EncodedDataset(picked(encoded.examples, items), owner, encoded.sizes[items], len(rows), lengths, groups)


def encode_for_training(
    task: Task[Any], rows: Rows, base: Base, wanted: int | None, limit: int | None, advance: Advance = lambda rows: None
) -> tuple[EncodedDataset, dict[str, Any]]:
    """Training examples, and what is said about their lengths before training.

    wanted: the length that the user chose. Without one, rows keep their length up to the model's limit, but
    for outliers, each of which would cost the memory and time of many others.
    """
    encoder = Encoder(task, rows, base, advance)
    whole = encoder.table
    longest = int(whole.lengths.max())
    length = wanted
    if length is None and task.unit == "tokens":
        usual = max(16, int(np.ceil(OUTLIER * np.percentile(whole.lengths, 99) / 8) * 8))
        length = min(longest, usual)
    if limit is not None:
        length = min(length or limit, limit)
    if length is not None:
        encoder.cut(length)
    encoded = encoder.done()
    # What was lost, and not what a task kept as further windows over the row.
    sizes = by_row(whole.owner(), whole.sizes, len(whole.counts))
    lost = np.maximum(sizes - encoded.row_sizes(), 0)
    return encoded, {
        "max_length": length, "limit": limit, "longest": longest, "median": int(np.median(whole.lengths)),
        "rows": len(whole.counts), "rows_cut": int((lost > 0).sum()), "tokens": int(sizes.sum()), "tokens_cut": int(lost.sum()),
    }

"""From rows to examples: every row is encoded once, cut at one length, and what was cut is counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubtune.contract import Base, Example, Rows, Task

OUTLIER = 2.0
"""Without a length from the user, only rows longer than this many times the 99th percentile are cut."""


@dataclass(frozen=True)
class Encoded:
    """Examples in the order of their rows. `owner[i]`: the row of example i; `sizes[i]`: its cost."""

    examples: list[Example]
    owner: NDArray[np.int64]
    sizes: NDArray[np.int64]
    rows: int

    def row_sizes(self) -> NDArray[np.int64]:
        """The cost of each row: that of all its examples."""
        return np.bincount(self.owner, weights=self.sizes, minlength=self.rows).astype(np.int64)

    def of_rows(self) -> list[list[int]]:
        """The examples of each row."""
        lists: list[list[int]] = [[] for _ in range(self.rows)]
        for index, row in enumerate(self.owner.tolist()):
            lists[row].append(index)
        return lists


def encode(task: Task[Any], rows: Rows, base: Base, limit: int | None) -> Encoded:
    """All examples of the rows, those longer than the limit cut. Only these are encoded a second time."""
    lists = [list(examples) for examples in task.encode(rows, replace(base, max_length=None))]
    if limit is not None:
        long = [row for row, examples in enumerate(lists) if any(task.length(e) > limit for e in examples)]
        cut = task.encode(pick(rows, long), replace(base, max_length=limit)) if long else ()
        for row, examples in zip(long, cut, strict=True):
            lists[row] = list(examples)
    flat = [example for examples in lists for example in examples]
    owner = np.repeat(np.arange(len(lists)), [len(examples) for examples in lists])
    return Encoded(flat, owner, np.array([task.size(e) for e in flat], dtype=np.int64), len(lists))


def some(encoded: Encoded, rows: Sequence[int]) -> Encoded:
    """The examples of some of the rows, in the order of these."""
    lists = encoded.of_rows()
    items = [item for row in rows for item in lists[row]]
    owner = np.repeat(np.arange(len(rows)), [len(lists[row]) for row in rows])
    return Encoded([encoded.examples[item] for item in items], owner, encoded.sizes[items], len(rows))


def pick(rows: Rows, indices: Sequence[int]) -> Rows:
    """Some of the rows, as rows."""
    return rows.select(indices) if hasattr(rows, "select") else [rows[index] for index in indices]


def encode_for_training(
    task: Task[Any], rows: Rows, base: Base, wanted: int | None, limit: int | None
) -> tuple[Encoded, dict[str, Any]]:
    """Training examples, and what is said about their lengths before training.

    wanted: the length that the user chose. Without one, rows keep their length up to the model's limit, but
    for outliers, each of which would cost the memory and time of many others.
    """
    whole = encode(task, rows, base, None)
    sizes = whole.row_sizes()
    lengths = np.array([task.length(example) for example in whole.examples], dtype=np.int64)
    longest = int(lengths.max())
    length = wanted
    if length is None and task.unit == "tokens":
        usual = max(16, int(np.ceil(OUTLIER * np.percentile(lengths, 99) / 8) * 8))
        length = min(longest, usual)
    if limit is not None:
        length = min(length or limit, limit)
    encoded = whole if length is None or longest <= length else encode(task, rows, base, length)
    # What was lost, and not what a task kept as further windows over the row.
    lost = np.maximum(sizes - encoded.row_sizes(), 0)
    return encoded, {
        "max_length": length, "limit": limit, "longest": longest, "median": int(np.median(lengths)),
        "rows": whole.rows, "rows_cut": int((lost > 0).sum()), "tokens": int(sizes.sum()), "tokens_cut": int(lost.sum()),
    }

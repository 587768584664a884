"""Encoding: turn rows into examples with `Task.encode`, and truncate examples that are too long.

Rows are encoded in batches, so that neither all rows nor all examples have to fit in memory.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubtune.contract import Base, Example, Rows, SamplingTask, Task
from hubtune.contract.validation import checked, encoded_rows
from hubtune.data.dataset import EncodedDataset, Examples
from hubtune.data.example_store import ExampleStore
from hubtune.data.row_batches import row_batches
from hubtune.errors import BrokenPlugin

OUTLIER = 2.0
"""Without a length from the user, rows longer than this times the 99th percentile are truncated."""
FEW_ROWS = 1000
"""Rows that are encoded before garbage is worth a thought."""
NAMED = 8
"""Number of truncated rows listed in a warning and in `run.json`."""
Progress = Callable[[int], None]
"""Called with the number of rows that have been encoded since the last call."""


def encode(
    task: Task[Any], rows: Rows, base: Base, max_length: int | None,
    progress: Progress = lambda rows: None,
) -> EncodedDataset:
    """Encode all rows, truncated to `max_length` (in the task's unit; None: not truncated)."""
    encoder = Encoder(task, rows, base, progress)
    whole = encoder.encode_rows(None)
    if max_length is not None:
        whole = encoder.truncate_long_rows(whole, max_length)
    return encoder.finish(whole)


def encode_for_training(
    task: Task[Any], rows: Rows, base: Base, wanted: int | None, limit: int | None,
    progress: Progress = lambda rows: None,
) -> tuple[EncodedDataset, dict[str, Any]]:
    """Encode the training rows, choose the maximum length, and count the truncated tokens.

    Args:
        wanted: the length that the user chose. Without one, rows keep their length up to the
            model's limit, except for outliers, each of which would cost the memory and time of many
            others.
        limit: the maximum length of the model.

    Returns:
        The dataset, and the lengths for `run.json` (in the task's unit).
    """
    encoder = Encoder(task, rows, base, progress)
    whole = encoder.encode_rows(None)
    lengths = whole.sizes if whole.lengths is None else whole.lengths
    max_length = wanted
    if max_length is None and task.unit == "tokens":
        usual = max(16, int(np.ceil(OUTLIER * np.percentile(lengths, 99) / 8) * 8))
        max_length = min(int(lengths.max()), usual)
    if limit is not None:
        max_length = min(max_length or limit, limit)
    if max_length is None:
        encoded = encoder.finish(whole)
    else:
        encoded = encoder.finish(encoder.truncate_long_rows(whole, max_length))
    # Counted by row: tokens that a task keeps in further windows over a row are not lost.
    before = whole.row_sizes()
    lost = np.maximum(before - encoded.row_sizes(), 0)
    truncated = np.flatnonzero(lost)
    return encoded, {
        "max_length": max_length, "limit": limit,
        "longest": int(lengths.max()), "median": int(np.median(lengths)),
        "rows": whole.rows, "rows_cut": len(truncated),
        "tokens": int(before.sum()), "tokens_cut": int(lost.sum()),
        "first_rows_cut": [
            {"row": int(row), "length": int(before[row])} for row in truncated[:NAMED]],
    }


def number_truncated_rows(
    lengths: dict[str, Any], numbers: Sequence[int] | NDArray[np.int64]
) -> dict[str, Any]:
    """Number the first truncated rows as the data does, from 1, for `run.json` and messages.

    Args:
        lengths: returned by `encode_for_training`.
        numbers: the row in the data, from 0, of each training row.
    """
    renumbered = [
        {**truncated, "row": int(numbers[truncated["row"]]) + 1}
        for truncated in lengths["first_rows_cut"]
    ]
    return {**lengths, "first_rows_cut": renumbered}


def describe_truncated_rows(lengths: dict[str, Any]) -> str:
    """List the first truncated rows: `row 17 (4,000)`. lengths: numbered as in the data."""
    named = [f"row {row['row']} ({row['length']:,})" for row in lengths["first_rows_cut"]]
    more = lengths["rows_cut"] - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


@contextlib.contextmanager
def frozen_objects(rows: int) -> Iterator[None]:
    """Collect garbage without visiting all modules and models, which takes a third of encoding many rows.

    Objects that are frozen already stay so. Counting these takes 60 ms where torch is imported, so few rows do without.
    """
    if rows < FEW_ROWS or gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class Encoder:
    """Encode the rows of one split into one store of examples."""

    def __init__(self, task: Task[Any], rows: Rows, base: Base, progress: Progress) -> None:
        self.task, self.rows, self.base, self.progress = task, rows, base, progress
        self.store = ExampleStore()
        self.has_groups = isinstance(task, SamplingTask)

    def encode_rows(
        self, max_length: int | None, numbers: NDArray[np.int64] | None = None
    ) -> EncodedDataset:
        """Append the examples of all rows, or of some, to the store; `finish` closes it."""
        base, first = replace(self.base, max_length=max_length), len(self.store)
        tables = [self.append([], [])]
        with frozen_objects(len(self.rows)):
            for batch in row_batches(self.rows, None if numbers is None else numbers.tolist()):
                lists = encoded_rows(self.task, batch, base)
                examples = [example for of_row in lists for example in of_row]
                tables.append(self.append(examples, list(map(len, lists))))
                self.progress(len(batch))
        counts, sizes, lengths, groups = map(np.concatenate, zip(*tables, strict=True))
        order = np.arange(first, len(self.store)) if first else None
        owner = np.repeat(np.arange(len(counts)), counts)
        return EncodedDataset(Examples(self.store, order), owner, sizes, len(counts), lengths,
                              groups if self.has_groups else None)

    def append(self, examples: list[Example], counts: list[int]) -> list[NDArray[np.int64]]:
        """Store examples; return counts per row, and sizes, lengths and groups per example."""
        self.store.extend(examples)
        task = self.task
        sizes = [checked(task, "num_tokens", task.num_tokens(example)) for example in examples]
        lengths = [checked(task, "length", task.length(example)) for example in examples]
        groups: list[int | None] = []
        if isinstance(task, SamplingTask):
            groups = [task.sampling_key(example) for example in examples]
        columns = (counts, sizes, lengths, [-1 if group is None else group for group in groups])
        return [np.array(column, np.int64) for column in columns]

    def truncate_long_rows(self, whole: EncodedDataset, max_length: int) -> EncodedDataset:
        """Encode rows with an example longer than `max_length` again, with `base.max_length` set.

        Raises:
            BrokenPlugin: the task's `encode` does not truncate.
        """
        assert whole.lengths is not None
        long = np.unique(whole.owner[whole.lengths > max_length])
        if not len(long):
            return whole
        new = self.encode_rows(max_length, long)
        assert new.lengths is not None
        if self.task.unit == "tokens" and new.lengths.max() > max_length:
            raise BrokenPlugin(
                f"`encode` of the task '{self.task.name}' made an example of {new.lengths.max()} "
                f"tokens, but base.max_length was {max_length}.",
                hint="`encode` has to truncate, as a processor does with truncation=True, "
                "max_length=base.max_length.",
            )
        kept = np.flatnonzero(~np.isin(whole.owner, long))
        # Positions in the store.
        items = np.append(kept, len(whole.owner) + np.arange(len(new.owner)))
        owner = np.append(whole.owner[kept], long[new.owner])
        order = owner.argsort(kind="stable")
        pairs = ((whole.sizes, new.sizes), (whole.lengths, new.lengths), (whole.groups, new.groups))
        both = [None if one is None or other is None else np.append(one, other)
                for one, other in pairs]
        sizes, lengths, groups = (None if array is None else array[items[order]] for array in both)
        assert sizes is not None
        return EncodedDataset(
            Examples(self.store, items[order]), owner[order], sizes, whole.rows, lengths, groups)

    def finish(self, encoded: EncodedDataset) -> EncodedDataset:
        """Close the store, after which examples can be read."""
        self.store.close()
        return encoded

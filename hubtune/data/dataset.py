"""The encoded dataset: the examples of a split, with the size, row and sampling group of each."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubtune.contract import Example, ExampleRNG
from hubtune.data.arrow_columns import Leaf
from hubtune.data.example_store import ExampleStore

MANIFEST = "dataset.json"
ARRAYS = ("owner", "sizes", "lengths", "groups")
"""Fields of an encoded dataset that are one number per example."""


@dataclass(frozen=True)
class EncodedDataset:
    """Examples in the order of their rows; a long row may have several.

    Attributes:
        examples: returned by `Task.encode`.
        owner: row of each example, (examples,).
        sizes: `Task.num_tokens` of each example, its cost.
        rows: number of rows.
        lengths: `Task.length` of each example, which the maximum length limits.
        groups: `Task.sampling_key` of each example, -1 for none.
        first: number of the first row in the data, for a window of a stream.
    """

    examples: Sequence[Example]
    owner: NDArray[np.int64]
    sizes: NDArray[np.int64]
    rows: int
    lengths: NDArray[np.int64] | None = None
    groups: NDArray[np.int64] | None = None
    first: int = 0

    def row_sizes(self) -> NDArray[np.int64]:
        """Return the size of each row: the sum over its examples."""
        return np.bincount(self.owner, weights=self.sizes, minlength=self.rows).astype(np.int64)

    def examples_by_row(self) -> RowRanges:
        """Return the example numbers of each row."""
        return RowRanges(np.append(0, np.bincount(self.owner, minlength=self.rows).cumsum()))

    def example_rng(self, seed: int, epoch: int, item: int) -> ExampleRNG:
        """Return the random generator of an example, with access to the examples of its group."""
        others: Sequence[Example] = ()
        if self.groups is not None and self.groups[item] >= 0:
            order, groups = self._by_group
            first, last = (np.searchsorted(groups, self.groups[item], side)
                           for side in ("left", "right"))
            others = Examples(self.examples, order[first:last])
        return ExampleRNG(seed, epoch, self.first + int(self.owner[item]), others)

    @functools.cached_property
    def _by_group(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All example numbers sorted by group, and the sorted groups."""
        assert self.groups is not None
        order = self.groups.argsort(kind="stable")
        return order, self.groups[order]

    def take(self, items: NDArray[np.int64], owner: NDArray[np.int64], rows: int) -> EncodedDataset:
        """Select examples in the order of `items` as the examples of other rows, `owner`."""
        arrays = {name: array[items] for name in ("sizes", "lengths", "groups")
                  if (array := getattr(self, name)) is not None}
        return EncodedDataset(Examples(self.examples, items), owner, rows=rows, **arrays)

    def select_rows(self, rows: Sequence[int]) -> EncodedDataset:
        """Select the examples of some rows, in the given order."""
        ranges = self.examples_by_row()
        items = np.array([item for row in rows for item in ranges[row]], np.int64)
        owner = np.repeat(np.arange(len(rows)), [len(ranges[row]) for row in rows])
        return self.take(items, owner, len(rows))

    def with_reference(
        self, reference: Sequence[Example], order: NDArray[np.int64]
    ) -> EncodedDataset:
        """Add the keys of `reference[order[i]]` to example i."""
        merged = MergedExamples(self.examples, Examples(reference, order))
        return dataclasses.replace(self, examples=merged)

    def save(self, folder: Path) -> None:
        """Write the dataset into a folder, for other processes to `open`.

        Raises:
            ValueError: some examples have no Arrow type and exist in memory only.
        """
        examples = Examples(self.examples)
        if not isinstance(examples.store, ExampleStore):
            raise ValueError("examples with values that have no Arrow type cannot be saved")
        examples.store.save(folder)
        arrays = {"order": examples.order, **{name: getattr(self, name) for name in ARRAYS}}
        for name, array in arrays.items():
            if array is not None:
                np.save(folder / f"{name}.npy", array)
        saved = [name for name, array in arrays.items() if array is not None]
        # Written last: its presence marks the folder as complete.
        (folder / MANIFEST).write_text(
            json.dumps({"rows": self.rows, "arrays": saved}), encoding="utf-8")

    @staticmethod
    def open(folder: Path) -> EncodedDataset:
        """Memory-map a saved dataset.

        Raises:
            ValueError, OSError: the files are incomplete.
        """
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        arrays: dict[str, Any] = {
            name: map_array(folder / f"{name}.npy") for name in manifest["arrays"]}
        examples = Examples(ExampleStore.open(folder), arrays.pop("order", None))
        return EncodedDataset(examples, rows=manifest["rows"], **arrays)


class Examples(Sequence[Example]):
    """A view of stored examples in a given order; by default all of them."""

    def __init__(self, store: Sequence[Example], order: NDArray[np.int64] | None = None) -> None:
        if isinstance(store, Examples):  # a view of a view is one view
            if order is None:
                order = store.order
            elif store.order is not None:
                order = store.order[order]
            store = store.store
        self.store: Sequence[Example] = store
        self.order: NDArray[np.int64] | None = order

    def __len__(self) -> int:
        return len(self.store) if self.order is None else len(self.order)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[item] for item in range(*index.indices(len(self)))]
        return self.store[index if self.order is None else int(self.order[index])]

    def flat_columns(self) -> Iterator[Leaf]:
        """Yield the numbers of all stored examples, column by column, with the keys above them."""
        if isinstance(self.store, ExampleStore | MergedExamples):
            yield from self.store.flat_columns()
        else:
            yield (), self.store


class MergedExamples(Sequence[Example]):
    """Examples with the keys of others added: example i is `{**examples[i], **more[i]}`."""

    def __init__(self, examples: Sequence[Example], more: Sequence[Example]) -> None:
        self.examples, self.more = examples, more

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[item] for item in range(*index.indices(len(self)))]
        return {**self.examples[index], **self.more[index]}

    def flat_columns(self) -> Iterator[Leaf]:
        """Yield the numbers of both, column by column, with the keys above them."""
        for part in (self.examples, self.more):
            yield from Examples(part).flat_columns()


class RowRanges(Sequence[range]):
    """The example numbers of each row.

    starts: first example of each row, then their total number.
    """

    def __init__(self, starts: NDArray[np.int64]) -> None:
        self.starts = starts

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        row = range(len(self))[row]
        return range(*self.starts[row : row + 2].tolist())


def map_array(path: Path) -> NDArray[Any]:
    """Memory-map a saved array, as an ndarray: slicing a memmap takes ten times as long."""
    array: NDArray[Any] = np.load(path, mmap_mode="r")
    return array.view(np.ndarray)

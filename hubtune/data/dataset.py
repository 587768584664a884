"""The encoded dataset: the examples of all rows of a split, with the size, the row and the group of each."""

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
from hubtune.data.example_store import ExampleStore, Leaf

MANIFEST = "dataset.json"
ARRAYS = ("owner", "sizes", "lengths", "groups")
"""Fields of an encoded dataset that are one number per example."""


@dataclass(frozen=True)
class EncodedDataset:
    """Examples in the order of their rows; a long row may have several.

    examples: what `Task.encode` returned. owner: the row of each example. sizes: `Task.num_tokens` of each, its cost.
    rows: how many rows there are. lengths: `Task.length` of each, which the maximum length limits. groups:
    `Task.sampling_key` of each, -1 for none. first: number of the first row in the data, for a window of a stream.
    """

    examples: Sequence[Example]
    owner: NDArray[np.int64]
    sizes: NDArray[np.int64]
    rows: int
    lengths: NDArray[np.int64] | None = None
    groups: NDArray[np.int64] | None = None
    first: int = 0

    def row_sizes(self) -> NDArray[np.int64]:
        """The size of each row: the sum over its examples."""
        return np.bincount(self.owner, weights=self.sizes, minlength=self.rows).astype(np.int64)

    def examples_by_row(self) -> RowRanges:
        """The numbers of the examples of each row."""
        return RowRanges(np.append(0, np.bincount(self.owner, minlength=self.rows).cumsum()))

    def example_rng(self, seed: int, epoch: int, item: int) -> ExampleRNG:
        """The random generator of an example, with the examples of its group."""
        others: Sequence[Example] = ()
        if self.groups is not None and self.groups[item] >= 0:
            order, groups = self._by_group
            first, last = (np.searchsorted(groups, self.groups[item], side) for side in ("left", "right"))
            others = Examples(self.examples, order[first:last])
        return ExampleRNG(seed, epoch, self.first + int(self.owner[item]), others)

    @functools.cached_property
    def _by_group(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The numbers of all examples sorted by group, and these groups."""
        assert self.groups is not None
        order = self.groups.argsort(kind="stable")
        return order, self.groups[order]

    def take(self, items: NDArray[np.int64], owner: NDArray[np.int64], rows: int) -> EncodedDataset:
        """Some of the examples, in the order of `items`, as those of other rows."""
        arrays = {name: array[items] for name in ("sizes", "lengths", "groups") if (array := getattr(self, name)) is not None}
        return EncodedDataset(Examples(self.examples, items), owner, rows=rows, **arrays)

    def select_rows(self, rows: Sequence[int]) -> EncodedDataset:
        """The examples of some rows, in the order of these."""
        ranges = self.examples_by_row()
        items = np.array([item for row in rows for item in ranges[row]], np.int64)
        return self.take(items, np.repeat(np.arange(len(rows)), [len(ranges[row]) for row in rows]), len(rows))

    def with_reference(self, reference: Sequence[Example], order: NDArray[np.int64]) -> EncodedDataset:
        """The same examples with further keys: those of `reference[order[i]]` for example i."""
        return dataclasses.replace(self, examples=MergedExamples(self.examples, Examples(reference, order)))

    def save(self, folder: Path) -> None:
        """Write the dataset into a folder, for other processes to `open`.

        Raises:
            ValueError: some examples have no form in Arrow and are in memory alone.
        """
        examples = Examples(self.examples)
        if not isinstance(examples.store, ExampleStore):
            raise ValueError("examples are in memory alone")
        examples.store.save(folder)
        arrays = {"order": examples.order, **{name: getattr(self, name) for name in ARRAYS}}
        for name, array in arrays.items():
            if array is not None:
                np.save(folder / f"{name}.npy", array)
        said = {"rows": self.rows, "arrays": [name for name, array in arrays.items() if array is not None]}
        (folder / MANIFEST).write_text(json.dumps(said), encoding="utf-8")  # written last: with it, all is there

    @staticmethod
    def open(folder: Path) -> EncodedDataset:
        """Map a saved dataset into memory. Raises ValueError or OSError where the files are not whole."""
        said = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        arrays: dict[str, Any] = {name: mapped(folder / f"{name}.npy") for name in said["arrays"]}
        examples = Examples(ExampleStore.open(folder), arrays.pop("order", None))
        return EncodedDataset(examples, rows=said["rows"], **arrays)


class Examples(Sequence[Example]):
    """Some of the stored examples, in an order of their own; by default all of them."""

    def __init__(self, store: Sequence[Example], order: NDArray[np.int64] | None = None) -> None:
        if isinstance(store, Examples):  # a view of a view is one view
            order = store.order if order is None else order if store.order is None else store.order[order]
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
        """All numbers of the stored examples, column by column, with the keys above them."""
        yield from self.store.flat_columns() if isinstance(self.store, ExampleStore | MergedExamples) else [((), self.store)]


class MergedExamples(Sequence[Example]):
    """Examples with the keys of others added: example i has all of `examples[i]` and of `more[i]`."""

    def __init__(self, examples: Sequence[Example], more: Sequence[Example]) -> None:
        self.examples, self.more = examples, more

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[item] for item in range(*index.indices(len(self)))]
        return {**self.examples[index], **self.more[index]}

    def flat_columns(self) -> Iterator[Leaf]:
        """All numbers of both, column by column, with the keys above them."""
        for part in (self.examples, self.more):
            yield from Examples(part).flat_columns()


class RowRanges(Sequence[range]):
    """The examples of each row. starts: the first example of each row, and the number of examples."""

    def __init__(self, starts: NDArray[np.int64]) -> None:
        self.starts = starts

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        row = range(len(self))[row]
        return range(*self.starts[row : row + 2].tolist())


def mapped(path: Path) -> NDArray[Any]:
    """An array that NumPy saved, mapped into memory. A plain array is sliced in a tenth of the time of a memmap."""
    array: NDArray[Any] = np.load(path, mmap_mode="r")
    return array.view(np.ndarray)

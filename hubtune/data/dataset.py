"""Examples as tasks made them, each read out of the store when it is asked for."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubtune.contract import Example, ExampleRNG
from hubtune.data.arrays import Place, loaded
from hubtune.data.column_store import Values


class Examples(Sequence[Example]):
    """Examples as tasks made them, each read when it is asked for. at: which of the values they are, by default all.

    more: what else examples hold, one mapping for each.
    """

    def __init__(self, values: Sequence[Example], at: NDArray[np.int64] | None = None, more: Examples | None = None) -> None:
        self.values, self.at, self.more = values, at, more

    def __len__(self) -> int:
        return len(self.values) if self.at is None else len(self.at)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[item] for item in range(*index.indices(len(self)))]
        place = index if self.at is None else int(self.at[index])
        found = self.values[place]
        return found if self.more is None else {**found, **self.more[index]}

    def leaves(self) -> Iterator[tuple[tuple[str, ...], Any]]:
        """Every array of numbers, and every list of what has no flat form, with the keys above it."""
        for part in (self.values, self.more):
            yield from part.leaves() if isinstance(part, Values | Examples) else [((), part)] if part else ()

    def some(self, items: NDArray[np.int64]) -> Examples:
        """Some of them."""
        return Examples(self.values, items if self.at is None else self.at[items], self.more and self.more.some(items))

    def save(self, folder: Path) -> dict[str, Any]:
        """Write them into a folder; returns what `open` needs, as JSON. Raises ValueError where something has no flat form."""
        assert isinstance(self.values, Values)
        said = {"values": self.values.said(), "at": self.at is not None, "more": self.more.save(folder / "more") if self.more else None}
        self.values.place.save(folder)
        if self.at is not None:
            np.save(folder / "at.npy", self.at)
        return said

    @staticmethod
    def open(folder: Path, said: Mapping[str, Any]) -> Examples:
        """What was saved in a folder, mapped into memory. Raises ValueError or OSError where it is not whole."""
        values = Values(Place(folder))
        values.open(said["values"])
        at = loaded(folder / "at.npy") if said["at"] else None
        return Examples(values, at, Examples.open(folder / "more", said["more"]) if said["more"] else None)


def with_more(examples: Sequence[Example], more: Examples) -> Examples:
    """Examples that hold more."""
    if isinstance(examples, Examples) and examples.more is None:
        return Examples(examples.values, examples.at, more)
    return Examples(examples, None, more)


SAID = "encoded.json"


class Ranges(Sequence[range]):
    """The examples of each row. starts: the first of each row, and how many there are."""

    def __init__(self, starts: NDArray[np.int64]) -> None:
        self.starts = starts

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        row = range(len(self))[row]
        return range(*self.starts[row : row + 2].tolist())


@dataclass(frozen=True)
class EncodedDataset:
    """Examples in the order of their rows. `owner[i]`: the row of example i; `sizes[i]`: its cost; `lengths[i]`: what was
    limited; `groups[i]`: what `Task.sampling_key` says of it, -1 for nothing."""

    examples: Sequence[Example]
    owner: NDArray[np.int64]
    sizes: NDArray[np.int64]
    rows: int
    lengths: NDArray[np.int64] | None = None
    groups: NDArray[np.int64] | None = None
    first: int = 0
    """The number of the first row in the data, of which these are some that follow each other."""

    def row_sizes(self) -> NDArray[np.int64]:
        """The cost of each row: that of all its examples."""
        return by_row(self.owner, self.sizes, self.rows)

    def examples_by_row(self) -> Ranges:
        """The examples of each row."""
        return Ranges(np.append(0, np.bincount(self.owner, minlength=self.rows).cumsum()))

    def draw(self, seed: int, epoch: int, item: int) -> ExampleRNG:
        """The randomness of an example, with the examples that it may be drawn together with."""
        others: Sequence[Example] = ()
        if self.groups is not None and self.groups[item] >= 0:
            order, groups = self._ordered
            first, last = (np.searchsorted(groups, self.groups[item], side) for side in ("left", "right"))
            others = Examples(self.examples, order[first:last])
        return ExampleRNG(seed, epoch, self.first + int(self.owner[item]), others)

    @functools.cached_property
    def _ordered(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The examples by their groups, and these groups."""
        assert self.groups is not None
        order = self.groups.argsort(kind="stable")
        return order, self.groups[order]

    def save(self, folder: Path) -> None:
        """Write all of it into a folder, for other processes to `open`. Raises ValueError where examples hold what has no
        flat form."""
        assert isinstance(self.examples, Examples)
        said = {"rows": self.rows, "examples": self.examples.save(folder)}
        for name in TABLES:
            if getattr(self, name) is not None:
                np.save(folder / f"{name}.npy", getattr(self, name))
        (folder / SAID).write_text(json.dumps(said), encoding="utf-8")  # the last: where it is, all is

    @staticmethod
    def open(folder: Path) -> EncodedDataset:
        """What was saved in a folder, mapped into memory. Raises ValueError or OSError where it is not whole."""
        said = json.loads((folder / SAID).read_text(encoding="utf-8"))
        tables: dict[str, Any] = {name: loaded(folder / f"{name}.npy") for name in TABLES if (folder / f"{name}.npy").exists()}
        return EncodedDataset(Examples.open(folder, said["examples"]), rows=said["rows"], **tables)


def by_row(owner: NDArray[np.int64], sizes: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    """The sizes of each row's examples, added up."""
    return np.bincount(owner, weights=sizes, minlength=rows).astype(np.int64)


TABLES = ("owner", "sizes", "lengths", "groups")

"""Examples as tasks made them, each read out of the store when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubtune.contract import Example
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

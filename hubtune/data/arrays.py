"""Arrays that grow: in memory while they are small together, then in flat files that are mapped into memory.

The pages of a mapped file are the system's to drop and to read again, so what is kept here may be larger than memory.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hubtune import temporary

IN_MEMORY = 32_000_000
"""Bytes of the arrays of a place together, above which all go to files."""
BLOCK = 1 << 16
"""Numbers that wait in a list until they are packed."""
WIDTHS: tuple[np.dtype[Any], ...] = tuple(np.dtype(kind) for kind in (np.uint8, np.uint16, np.int32, np.int64))
"""Whole numbers take the first of these that holds them all; each holds what those before it hold."""
RANGES = [(0, 2**8 - 1), (0, 2**16 - 1), (-(2**31), 2**31 - 1), (-(2**63), 2**63 - 1)]


class Place:
    """Where arrays lie that belong together. folder: in files there from the start, which stay; None: in memory, and then in
    a temporary folder (by `TMPDIR`) that goes when the place does."""

    def __init__(self, folder: Path | None = None, most: int = IN_MEMORY) -> None:
        self.folder, self.most, self.held, self.count = folder, most, 0, 0
        self.arrays: weakref.WeakSet[Array] = weakref.WeakSet()  # they hold the place, which goes with the last of them
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def array(self, kind: Any = None, name: str | None = None) -> Array:
        """A new array: of one kind of numbers, or of whole ones, kept as small as they are. name: of its file."""
        made = Array(self, name or f"{self.count}.flat", kind)
        self.arrays.add(made)
        self.count += 1
        return made

    def hold(self, grown: Array) -> None:
        """A block has been appended: to the files with all that is in memory, if that is too large together."""
        self.held += grown.blocks[-1].nbytes
        if self.folder is not None:
            grown.spill()
        elif self.held > self.most:
            self.scratch = temporary.Folder()  # which goes with the place
            self.folder = self.scratch.path
            for array in self.arrays:
                array.spill()

    def close(self) -> None:
        """All is appended."""
        for array in self.arrays:
            array.close()

    def save(self, folder: Path) -> None:
        """The arrays as files in a folder; those that are files already take no more room there where links can be made."""
        folder.mkdir(parents=True, exist_ok=True)
        for array in self.arrays if folder != self.folder else ():
            target = folder / array.name
            target.unlink(missing_ok=True)
            try:
                if self.folder is None:
                    raise OSError("they are in memory")
                os.link(array.path, target)
            except OSError:
                array.values.tofile(target)


class Array:
    """Numbers that are appended until `close`, and then read as `values`."""

    def __init__(self, place: Place, name: str, kind: Any) -> None:
        self.place, self.name, self.narrow = place, name, kind is None
        self.dtype = WIDTHS[0] if kind is None else np.dtype(kind)
        self.waiting: Any = bytearray() if self.dtype == np.uint8 and not self.narrow else []
        self.blocks: list[NDArray[Any]] = []
        self.filed = 0  # how many are in the file
        self.values: NDArray[Any] = np.zeros(0, self.dtype)

    def extend(self, numbers: Iterable[Any]) -> None:
        """Append Python numbers, or bytes."""
        self.waiting.extend(numbers)
        if len(self.waiting) >= BLOCK:
            self.pack()

    def pack(self) -> None:
        """Numbers that wait become a block."""
        if self.waiting:
            waiting, self.waiting = self.waiting, type(self.waiting)()
            kind = np.int64 if self.narrow else self.dtype
            self.append(np.frombuffer(waiting, kind) if isinstance(waiting, bytearray) else np.array(waiting, kind))

    def append(self, block: NDArray[Any]) -> None:
        """Append an array to all that came before."""
        self.pack()
        if self.narrow and len(block):
            low, high = block.min(), block.max()
            fits = next(number for number, (least, most) in enumerate(RANGES) if least <= low and high <= most)
            if fits > WIDTHS.index(self.dtype):
                self.widen(WIDTHS[fits])
        self.blocks.append(block.astype(self.dtype, copy=False))
        self.place.hold(self)

    def widen(self, dtype: np.dtype[Any]) -> None:
        """Larger numbers from here on: what is in the file is written anew."""
        if self.filed:
            old, aside = mapped(self.path, self.dtype, self.filed), self.path.with_suffix(".wider")
            with aside.open("wb") as file:
                for start in range(0, self.filed, BLOCK):
                    old[start : start + BLOCK].astype(dtype).tofile(file)
            aside.replace(self.path)
        self.dtype = dtype

    def spill(self) -> None:
        """What is in memory goes to the file."""
        with self.path.open("ab" if self.filed else "wb") as file:
            for block in self.blocks:
                block.astype(self.dtype, copy=False).tofile(file)
                self.filed += len(block)
        self.blocks = []

    def close(self) -> None:
        """All is appended."""
        self.pack()
        if self.place.folder is not None:
            self.spill()
            self.values = mapped(self.path, self.dtype, self.filed)
        else:
            self.values = np.concatenate([np.zeros(0, self.dtype), *self.blocks], dtype=self.dtype)
        self.blocks = []

    def said(self) -> list[Any]:
        """What `open` needs, as JSON."""
        return [self.name, self.dtype.str, len(self.values)]

    def open(self, said: list[Any]) -> None:
        """Map a file into memory that was said to be here; raises ValueError or OSError where it is not whole."""
        self.name, kind, count = said
        self.dtype = np.dtype(kind)
        self.values = mapped(self.path, self.dtype, count)

    @property
    def path(self) -> Path:
        """Its file."""
        assert self.place.folder is not None
        return self.place.folder / self.name


def mapped(path: Path, dtype: DTypeLike, shape: Any) -> NDArray[Any]:
    """A file of numbers as an array that is read when it is looked at. Raises ValueError or OSError if it is too short."""
    if not np.prod(shape):
        return np.zeros(shape, dtype)  # nothing can be mapped of an empty file
    return np.memmap(path, dtype, "r", shape=shape).view(np.ndarray)  # a plain array is sliced in a tenth of the time


def loaded(path: Path) -> NDArray[Any]:
    """An array that NumPy saved, likewise."""
    found: NDArray[Any] = np.load(path, mmap_mode="r")
    return found.view(np.ndarray)

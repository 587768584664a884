"""Dropout masks that depend on a row alone, not on the micro-batch it is computed in.

A mask is a hash of (seed, step, row, number of the dropout call, position inside the row). The other rows of the micro-batch,
padding, the number of processes and threads do not enter, so another cut of a step changes rounding only. There is no
generator and no state: a resumed step, or activations that are computed again, find the same masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FIRST_MIX, SECOND_MIX = 0x7FEB352D, 0x846CA68B - 2**32
"""Multipliers of a 32-bit integer hash with low bias (C. Wellons, 2018)."""
STRIDES = (0x165667B1, 0x9E3779B1 - 2**32, 0x85EBCA77 - 2**32, 0xC2B2AE3D - 2**32, 0x27D4EB2F)
"""An odd number for each dimension, by which its coordinates are multiplied (primes of xxHash)."""
CALLS = 64
"""Dropout calls that keys are made for at a time."""


@dataclass(frozen=True)
class Packed:
    """Examples end to end in one row, as tensors of shape (1, tokens, width) and (1, heads, tokens, tokens) hold them.

    rows, positions: (tokens,), the example of each token, and its position in that example.
    """

    rows: Tensor
    positions: Tensor

    def dimension(self, shape: Sequence[int]) -> int | None:
        """The dimension of a tensor that counts the tokens; None where there is none."""
        if len(shape) < 3 or shape[0] != 1:
            return None
        places = [place for place in range(1, len(shape) - 1) if shape[place] == len(self.rows)]
        return places[-1] if places else None

    def counts_keys(self, shape: Sequence[int]) -> bool:
        """Whether the last dimension of a tensor counts the tokens, too: attention's weights."""
        return len(shape) > 3 and shape[-1] == shape[-2] == len(self.rows)


@dataclass(frozen=True)
class Axes:
    """Which dimension counts the rows in the tensor of each dropout call.

    calls: (number of dimensions, dimension of the rows or None) by call, as a trial forward pass met them.
    """

    calls: tuple[tuple[int, int | None], ...] = ()

    def of(self, call: int, ndim: int) -> int | None:
        """The dimension of the rows: the first one where the trial met something else."""
        known = self.calls[call] if call < len(self.calls) else (-1, 0)
        return known[1] if known[0] == ndim else 0


@dataclass
class RowDraws:
    """Random numbers of one forward pass over some rows.

    rows: their numbers in the training data, in the order of the batch. call: how many dropout calls there were.
    """

    seed: int
    step: int
    rows: Sequence[int]
    axes: Axes = field(default_factory=Axes)
    packed: Packed | None = None
    call: int = 0
    keys: NDArray[np.int32] = field(default_factory=lambda: np.empty((0, 0), np.int32), repr=False)

    def again(self, call: int) -> RowDraws:
        """The same numbers once more, from a call on."""
        return replace(self, call=call)

    def keep(self, like: Tensor, p: float, shape: Sequence[int] | None = None) -> Tensor:
        """A mask: 0 with probability p (to 2**-16), else 1 / (1 - p). shape: where it is not that of `like`."""
        kept = self.words(tuple(like.shape if shape is None else shape), like.device) >= round((p - 0.5) * 65_536)
        return kept.to(like.dtype).mul_(1.0 / (1.0 - p))

    def uniform(self, shape: Sequence[int], device: torch.device) -> Tensor:
        """fp32 numbers in [0, 1) as `torch.rand` gives them, in steps of 2**-16."""
        return (self.words(tuple(shape), device).to(torch.float32) + 32_768) / 65_536

    def words(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """A random int16 for every place of a tensor: two are made of one hash of (row, call, coordinates)."""
        axis = self.axes.of(self.call, len(shape)) if shape else None
        flat = not shape or axis == len(shape) - 1  # without a dimension that could be hashed last
        inner = (*shape, 1) if flat else shape
        keys = torch.from_numpy(self.keys_of_call()).to(device)
        leading = scrambled(self.leading(inner, axis, keys)).unsqueeze_(-1)
        if self.packed is not None and self.packed.counts_keys(inner):
            found = halves(leading, column_hash((inner[-1] + 1) // 2, device), self.packed.positions)
        else:
            found = product(leading, column_hash((inner[-1] + 1) // 2, device)).view(torch.int16)[..., : inner[-1]]
        self.call += 1
        return found[..., 0] if flat else found

    def leading(self, shape: tuple[int, ...], axis: int | None, keys: Tensor) -> Tensor:
        """What is hashed of all dimensions but the last: the key of the row, plus coordinates times their strides."""
        tokens = self.packed.dimension(shape) if self.packed is not None else None
        if self.packed is not None and tokens is not None:
            of_token = keys[self.packed.rows] + (self.packed.positions * STRIDES[tokens]).to(torch.int32)
            return coordinates(shape[:-1], tokens, 1, keys.device) + on(of_token, tokens, len(shape) - 1)
        count = len(self.rows)
        if axis is None or shape[axis] % count:
            return coordinates(shape[:-1], None, 0, keys.device) + keys[count]
        each = shape[axis] // count  # such as choices, or heads: a row's stand together
        found = coordinates(shape[:-1], axis, each, keys.device)
        if each == 1:
            return found + on(keys[:count], axis, len(shape) - 1)
        return (found.unsqueeze(axis) + on(keys[:count], axis, len(shape))).flatten(axis, axis + 1)

    def keys_of_call(self) -> NDArray[np.int32]:
        """A key for each row, and one for what has no rows."""
        if self.call >= len(self.keys):
            start = mixed(mixed(np.array([self.seed % 2**64], np.uint64)) ^ np.uint64(self.step))
            rows = mixed(start ^ np.array([*self.rows, 2**63], np.uint64))
            calls = np.arange(-(-(self.call + 1) // CALLS) * CALLS, dtype=np.uint64)[:, None]
            self.keys = (mixed(rows + mixed(calls)) >> np.uint64(32)).astype(np.uint32).view(np.int32)
        found: NDArray[np.int32] = self.keys[self.call]
        return found


def mixed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of SplitMix64: a permutation of 64-bit words."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def scrambled(words: Tensor) -> Tensor:
    """One round of the hash, in place: the upper half of each int32 into the lower one, and both upwards."""
    return words.bitwise_xor_(words >> 16).mul_(FIRST_MIX)


def product(leading: Tensor, columns: Tensor) -> Tensor:
    """A hash for each pair of (leading coordinates, columns): all bits of either enter both halves of the word."""
    return scrambled(leading * columns)


def halves(leading: Tensor, columns: Tensor, positions: Tensor) -> Tensor:
    """The halves of `product` that belong to positions: what `view(torch.int16)` gives where they count from 0."""
    words = product(leading, columns[positions // 2]).view(torch.int16)
    return words[..., torch.arange(0, 2 * len(positions), 2, device=positions.device) + positions % 2]


def on(values: Tensor, dimension: int, ndim: int) -> Tensor:
    """A vector along one dimension of `ndim`."""
    return values.view(*[1] * dimension, -1, *[1] * (ndim - dimension - 1))


@lru_cache(maxsize=256)
def column_hash(count: int, device: torch.device) -> Tensor:
    """An odd word for each column of a tensor."""
    words = scrambled(torch.arange(1, count + 1, dtype=torch.int32, device=device).mul_(STRIDES[0]))
    return scrambled(words.mul_(SECOND_MIX)).bitwise_or_(1)


@lru_cache(maxsize=256)
def coordinates(shape: tuple[int, ...], axis: int | None, each: int, device: torch.device) -> Tensor:
    """Coordinates times strides, summed over dimensions; along `axis`, those of the places that a row has there."""
    found = torch.zeros([1] * len(shape), dtype=torch.int32, device=device)
    for place, size in enumerate(shape):
        count = each if place == axis else size
        found = found + on(torch.arange(count, dtype=torch.int32, device=device) * STRIDES[place % len(STRIDES)], place, len(shape))
    return found

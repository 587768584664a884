"""Row-wise dropout: masks depend on the row alone, not on the micro-batch it is computed in.

A mask is a hash of (seed, step, row, index of the dropout call, position within the row). Other
rows of the micro-batch, padding, and the numbers of processes and threads do not enter, so that
other micro-batches change rounding only. There is no generator and no state: a resumed step, or
recomputed activations, get the same masks.
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
"""An odd multiplier for the coordinates of each dimension (primes of xxHash)."""
CALLS = 64
"""Number of dropout calls for which keys are computed at a time."""


@dataclass(frozen=True)
class Packed:
    """Examples packed into one row: tensors are (1, tokens, width) and (1, heads, tokens, tokens).

    Attributes:
        rows, positions: (tokens,), the example of each token, and its position in that example.
    """

    rows: Tensor
    positions: Tensor

    def dimension(self, shape: Sequence[int]) -> int | None:
        """Return the dimension of a tensor that counts tokens, or None."""
        if len(shape) < 3 or shape[0] != 1:
            return None
        places = [place for place in range(1, len(shape) - 1) if shape[place] == len(self.rows)]
        return places[-1] if places else None

    def counts_keys(self, shape: Sequence[int]) -> bool:
        """Tell whether the last dimension counts tokens too, as in attention weights."""
        return len(shape) > 3 and shape[-1] == shape[-2] == len(self.rows)


@dataclass(frozen=True)
class Axes:
    """The dimension of rows in the tensor of each dropout call.

    Attributes:
        calls: (number of dimensions, dimension of the rows or None) by call, from a trial forward
            pass.
    """

    calls: tuple[tuple[int, int | None], ...] = ()

    def row_axis(self, call: int, ndim: int) -> int | None:
        """Return the dimension of rows; the first one if the trial saw a different call."""
        known = self.calls[call] if call < len(self.calls) else (-1, 0)
        return known[1] if known[0] == ndim else 0


@dataclass
class RowDraws:
    """Random numbers of one forward pass over some rows.

    Attributes:
        rows: their indices in the training data, in the order of the batch.
        call: number of dropout calls so far.
    """

    seed: int
    step: int
    rows: Sequence[int]
    axes: Axes = field(default_factory=Axes)
    packed: Packed | None = None
    call: int = 0
    keys: NDArray[np.int32] = field(default_factory=lambda: np.empty((0, 0), np.int32), repr=False)

    def rewind(self, call: int) -> RowDraws:
        """Return the same random numbers from an earlier call on."""
        return replace(self, call=call)

    def mask(self, like: Tensor, p: float, shape: Sequence[int] | None = None) -> Tensor:
        """Return a mask: 0 with probability p (to 2**-16), else 1 / (1 - p).

        Args:
            shape: of the mask, if it differs from that of `like`.
        """
        words = self.words(tuple(like.shape if shape is None else shape), like.device)
        return dropout_mask(words, p, like.dtype)

    def uniform(self, shape: Sequence[int], device: torch.device) -> Tensor:
        """Return fp32 numbers in [0, 1) like `torch.rand`, in steps of 2**-16."""
        return (self.words(tuple(shape), device).to(torch.float32) + 32_768) / 65_536

    def words(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Return a random int16 per element: each hash of (row, call, coordinates) gives two."""
        axis = self.axes.row_axis(self.call, len(shape)) if shape else None
        flat = not shape or axis == len(shape) - 1  # without a dimension that could be hashed last
        inner = (*shape, 1) if flat else shape
        keys = torch.from_numpy(self.call_keys()).to(device)
        leading = mix32_(self.leading_hash(inner, axis, keys)).unsqueeze_(-1)
        if self.packed is not None and self.packed.counts_keys(inner):
            found = pair_halves(leading, column_hash((inner[-1] + 1) // 2, device),
                                self.packed.positions)
        else:
            columns = column_hash((inner[-1] + 1) // 2, device)
            found = pair_hash(leading, columns).view(torch.int16)[..., :inner[-1]]
        self.call += 1
        return found[..., 0] if flat else found

    def leading_hash(self, shape: tuple[int, ...], axis: int | None, keys: Tensor) -> Tensor:
        """Hash all dimensions but the last: the row's key, plus coordinates times their strides."""
        tokens = self.packed.dimension(shape) if self.packed is not None else None
        if self.packed is not None and tokens is not None:
            of_position = (self.packed.positions * STRIDES[tokens]).to(torch.int32)
            of_token = along(keys[self.packed.rows] + of_position, tokens, len(shape) - 1)
            return coordinates(shape[:-1], tokens, 1, keys.device) + of_token
        count = len(self.rows)
        if axis is None or shape[axis] % count:
            return coordinates(shape[:-1], None, 0, keys.device) + keys[count]
        each = shape[axis] // count  # such as choices, or heads: a row's stand together
        found = coordinates(shape[:-1], axis, each, keys.device)
        if each == 1:
            return found + along(keys[:count], axis, len(shape) - 1)
        both = found.unsqueeze(axis) + along(keys[:count], axis, len(shape))
        return both.flatten(axis, axis + 1)

    def call_keys(self) -> NDArray[np.int32]:
        """Return a key for each row, and one for tensors without rows."""
        if self.call >= len(self.keys):
            start = mix64(mix64(np.array([self.seed % 2**64], np.uint64)) ^ np.uint64(self.step))
            rows = mix64(start ^ np.array([*self.rows, 2**63], np.uint64))
            calls = np.arange(-(-(self.call + 1) // CALLS) * CALLS, dtype=np.uint64)[:, None]
            hashes = mix64(rows + mix64(calls)) >> np.uint64(32)
            self.keys = hashes.astype(np.uint32).view(np.int32)
        found: NDArray[np.int32] = self.keys[self.call]
        return found


def dropout_mask(words: Tensor, p: float, dtype: torch.dtype) -> Tensor:
    """Return 0 for the share p of the int16 words that is lowest, else 1 / (1 - p).

    In integers as far as possible: comparisons, and conversions of bool to a half precision, are
    not vectorized by torch on CPUs, and took 4 (fp32) to 12 times (bf16) as long.
    """
    lowest_kept, scale = round((p - 0.5) * 65_536), 1.0 / (1.0 - p)
    if not -32_768 < lowest_kept < 32_768:  # p is below 2**-17, or above 1 - 2**-17
        return torch.full(words.shape, scale if p < 0.5 else 0.0, dtype=dtype, device=words.device)
    kept = words.clamp(lowest_kept - 1, lowest_kept).sub_(lowest_kept - 1)  # 0 or 1
    if dtype.itemsize != kept.dtype.itemsize:
        return kept.to(dtype).mul_(scale)
    return kept.mul_(int(torch.tensor(scale, dtype=dtype).view(torch.int16))).view(dtype)


def mix64(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Apply the finalizer of SplitMix64: a permutation of 64-bit words."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def mix32_(words: Tensor) -> Tensor:
    """Apply one round of the hash to int32 in place."""
    return words.bitwise_xor_(words >> 16).mul_(FIRST_MIX)


def pair_hash(leading: Tensor, columns: Tensor) -> Tensor:
    """Hash each pair of (leading coordinates, column): all bits of either affect both halves."""
    return mix32_(leading * columns)


def pair_halves(leading: Tensor, columns: Tensor, positions: Tensor) -> Tensor:
    """Return the halves of `pair_hash` at positions, like `view(torch.int16)` from 0 on."""
    words = pair_hash(leading, columns[positions // 2]).view(torch.int16)
    pairs = torch.arange(0, 2 * len(positions), 2, device=positions.device)
    return words[..., pairs + positions % 2]


def along(values: Tensor, dimension: int, ndim: int) -> Tensor:
    """Reshape a vector to lie along one of `ndim` dimensions."""
    return values.view(*[1] * dimension, -1, *[1] * (ndim - dimension - 1))


@lru_cache(maxsize=256)
def column_hash(count: int, device: torch.device) -> Tensor:
    """Return an odd word for each column of a tensor."""
    words = mix32_(torch.arange(1, count + 1, dtype=torch.int32, device=device).mul_(STRIDES[0]))
    return mix32_(words.mul_(SECOND_MIX)).bitwise_or_(1)


@lru_cache(maxsize=256)
def coordinates(shape: tuple[int, ...], axis: int | None, each: int,
                device: torch.device) -> Tensor:
    """Sum coordinates times strides over dimensions; along `axis`, only those within a row."""
    found = torch.zeros([1] * len(shape), dtype=torch.int32, device=device)
    for place, size in enumerate(shape):
        count = each if place == axis else size
        steps = torch.arange(count, dtype=torch.int32,
                             device=device) * STRIDES[place % len(STRIDES)]
        found = found + along(steps, place, len(shape))
    return found

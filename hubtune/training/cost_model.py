"""From a few micro-batches that were tried to the cost of all: their time, and what memory suffices for. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rung = tuple[int, int]
"""A micro-batch: how many examples, and the size of each."""


@dataclass(frozen=True)
class Pace:
    """Seconds: of a step beside its micro-batches, of a micro-batch beside its tokens, of a token (padded ones count)."""

    step: float
    micro_batch: float
    token: float

    def of(self, micro_batches: float, padded: float) -> float:
        """Seconds of a step, without the optimizer's."""
        return self.step + micro_batches * self.micro_batch + padded * self.token

    def times(self, factor: float) -> Pace:
        """The pace by another clock."""
        return Pace(factor * self.step, factor * self.micro_batch, factor * self.token)


def pace(one: float, two: float, many: float, size: int, count: int) -> Pace:
    """From the seconds of three steps: a micro-batch of one example of this size; two of these; one of so many examples.

    What the second micro-batch costs is what cutting costs: the first also makes room for the gradient. Where the clock sees
    nothing of the tokens, they cost a sixteenth of the last step's time.
    """
    token = max(1e-12, many / (16 * count * size), (many - one) / ((count - 1) * size))
    micro_batch = max(0.0, two - one - token * size)
    return Pace(max(0.0, one - micro_batch - token * size), micro_batch, token)


def overhead(found: Pace) -> int:
    """What a micro-batch costs beyond its padded tokens, in tokens: a power of four, 4 to 65536.

    So coarse that two runs on one machine have one plan nearly always; being off by a factor of two costs little.
    """
    return int(4 ** min(8, max(1, round(math.log(max(1.0, found.micro_batch / found.token), 4)))))


def ladder(sizes: NDArray[np.int64], limit: int, most: int) -> list[Rung]:
    """Micro-batches up to the largest that a run may meet, each about twice the one before: longer, then more.

    sizes: of all examples; most: examples of a step.
    """
    known = np.unique(sizes)
    longest = int(known[-1])
    wanted = [longest / 2**power for power in (4, 3, 2, 1, 0)]
    found = [(1, int(known[int(np.searchsorted(known, size))])) for size in wanted]
    largest = max(1, min(limit // max(1, longest), most))
    counts = [2**power for power in range(1, largest.bit_length()) if 2**power < largest] + [largest]
    return list(dict.fromkeys([*found, *((count, longest) for count in counts)]))


def growth(one: Rung, other: Rung) -> float:
    """How many times as much memory the other may take: by its tokens and, for attention, by its length."""
    return max(1.0, other[0] * other[1] / max(1, one[0] * one[1])) * max(1.0, other[1] / max(1, one[1]))


def fitting(
    rungs: Sequence[Rung], used: Callable[[Rung], int | None], room: int, quick: Callable[[Rung], bool], fixed: int = 0
) -> tuple[Rung | None, list[tuple[Rung, int]]]:
    """The last rung that fits (none, if not even the first); and those that were tried and did, with the bytes they used.

    used: computes a rung and says the bytes that it took; None: they were not to be had. fixed: those of them that do not grow.
    After the first, a rung is only tried if what was taken so far leaves room for its growth: the largest quick one, else
    the next; and none, where there is room for all and no quick one is left.
    """
    tried: list[tuple[Rung, int]] = []
    place, end = 0, len(rungs)

    def fits(rung: Rung) -> bool:
        return not tried or fixed + max(0, tried[-1][1] - fixed) * growth(tried[-1][0], rung) <= room

    while place < end:
        ahead = [number for number in range(place, end) if tried and quick(rungs[number]) and fits(rungs[number])]
        if not ahead and tried and end == len(rungs) and fits(rungs[-1]):
            break
        number = max(ahead, default=place)
        found = used(rungs[number]) if fits(rungs[number]) else None
        if found is not None and found <= room:
            tried.append((rungs[number], found))
            place = number + 1
        else:
            end = number
    return rungs[-1] if end == len(rungs) else tried[-1][0] if tried else None, tried


def bytes_of(rung: Rung, tried: Sequence[tuple[Rung, int]], fixed: int = 0) -> int:
    """What a micro-batch will use, on the line through the first and the last that were tried, or through what is fixed."""
    if not tried:
        return fixed
    (last, taken), (first, before) = tried[-1], tried[0]
    tokens, fewer = last[0] * last[1], first[0] * first[1]
    if len(tried) == 1:
        fewer, before = 0, min(fixed, taken)
    return taken + round((taken - before) / max(1, tokens - fewer) * max(0, rung[0] * rung[1] - tokens))

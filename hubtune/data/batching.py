"""Which rows make a step, and how a step is cut into micro-batches: pure functions of their arguments.

A step is `batch_size` rows, whatever the machine. Devices and memory decide only how it is cut, so that a
run goes on elsewhere with the same steps. Nothing here knows of tensors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ORDERS = ("random", "length-bucketed")


def steps_of_epoch(
    sizes: Sequence[int] | NDArray[np.int64], batch_size: int, order: str, seed: int, epoch: int
) -> list[NDArray[np.int64]]:
    """Rows of every step of an epoch; each row exactly once.

    random: a permutation cut every `batch_size` rows, whose gradient is the textbook's.
    length-bucketed: rows of similar size meet (sizes jittered by up to 10% so that neighbours change between epochs),
    and the steps come in random order.
    """
    draw = np.random.default_rng([seed, epoch])
    rows = draw.permutation(len(sizes))
    if order == "length-bucketed":
        jittered = np.asarray(sizes)[rows] * draw.uniform(0.9, 1.1, len(rows))
        rows = rows[np.argsort(jittered, kind="stable")]
    steps = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    if order == "length-bucketed":
        # The short last step holds the longest rows; wherever it comes, each row keeps the weight of its step.
        steps = [steps[index] for index in draw.permutation(len(steps))]
    return steps


def micro_batches(
    items: Sequence[int], sizes: Sequence[int], overhead: int, limit: int, uniform: bool = False
) -> list[list[int]]:
    """Cut a step into micro-batches of the least cost, longest first.

    items: the examples of the step; sizes: the size of each of them. A micro-batch costs its padded tokens plus
    `overhead`, and holds at most `limit` padded tokens (always at least one example).
    uniform: only examples of one size meet, for models whose answers change with padding.
    The best cut of a sorted sequence is found by dynamic programming over its prefixes.
    """
    order = sorted(range(len(items)), key=lambda index: (-sizes[index], index))
    if not order:
        return []
    best = [0.0] + [float("inf")] * len(order)
    start_of = [0] * (len(order) + 1)
    for end in range(1, len(order) + 1):
        for start in range(end - 1, -1, -1):
            longest = max(1, sizes[order[start]])
            taken = (end - start) * longest
            if end - start > 1 and (taken > limit or (uniform and sizes[order[start]] != sizes[order[end - 1]])):
                break
            cost = best[start] + taken + overhead
            if cost < best[end]:
                best[end], start_of[end] = cost, start
    cuts: list[list[int]] = []
    end = len(order)
    while end:
        start = start_of[end]
        cuts.append([items[index] for index in order[start:end]])
        end = start
    return cuts[::-1]


def evaluation_batches(sizes: Sequence[int] | NDArray[np.int64], limit: int, most: int, uniform: bool = False) -> list[list[int]]:
    """All examples, longest first, in batches of at most `most` examples and `limit` padded tokens.

    uniform: only examples of one size meet.
    """
    falling = -np.asarray(sizes, np.int64)
    order = np.argsort(falling, kind="stable")
    falling = falling[order]
    batches: list[list[int]] = []
    first = 0
    while first < len(order):
        size = -int(falling[first])
        last = first + max(1, min(most, limit // max(1, size)))
        if uniform:
            last = min(last, int(np.searchsorted(falling, -size, "right")))
        batches.append(order[first:last].tolist())
        first = last
    return batches


def batches_of_rank(batches: Sequence[list[int]], world: int, rank: int) -> list[tuple[int, list[int]]]:
    """This rank's batches with their index in the step. Every rank gets the same number: some of them empty."""
    most = -(-len(batches) // world)
    indices = range(rank, most * world, world)
    return [(index, list(batches[index]) if index < len(batches) else []) for index in indices]

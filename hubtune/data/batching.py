"""Batching: divide an epoch into optimization steps, and a step into micro-batches. Pure functions.

A step is `batch_size` rows on every machine. Devices and memory decide only how it is divided into
micro-batches, so that a run can be resumed elsewhere with the same steps. Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ORDERS = ("random", "length-bucketed")


def steps_of_epoch(
    sizes: Sequence[int] | NDArray[np.int64], batch_size: int, order: str, seed: int, epoch: int
) -> list[NDArray[np.int64]]:
    """Draw the rows of every step of an epoch; each row occurs exactly once.

    Args:
        order: `random` is a permutation divided every `batch_size` rows. `length-bucketed` groups
            rows of similar size (jittered by up to 10% so that neighbours change between epochs)
            and shuffles the steps.
    """
    draw = np.random.default_rng([seed, epoch])
    rows = draw.permutation(len(sizes))
    if order == "length-bucketed":
        jittered = np.asarray(sizes)[rows] * draw.uniform(0.9, 1.1, len(rows))
        rows = rows[np.argsort(jittered, kind="stable")]
    steps = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    if order == "length-bucketed":
        # The short last step holds the longest rows; each row keeps the weight of its step.
        steps = [steps[index] for index in draw.permutation(len(steps))]
    return steps


def micro_batches(
    items: Sequence[int], sizes: Sequence[int], overhead: int, limit: int, uniform: bool = False
) -> list[list[int]]:
    """Divide a step into micro-batches of minimal cost, longest first.

    The best division of a sorted sequence is found by dynamic programming over its prefixes.

    Args:
        items: the examples of the step.
        sizes: the size of each of them.
        overhead: cost of a micro-batch beyond its padded tokens, in tokens.
        limit: maximum number of padded tokens per micro-batch; one example is always allowed.
        uniform: group only examples of one size, for models whose outputs change with padding.
    """
    order = sorted(range(len(items)), key=lambda index: (-sizes[index], index))
    if not order:
        return []
    best = [0.0] + [float("inf")] * len(order)
    start_of = [0] * (len(order) + 1)
    for end in range(1, len(order) + 1):
        for start in range(end - 1, -1, -1):
            longest = max(1, sizes[order[start]])
            padded = (end - start) * longest
            mixed = uniform and sizes[order[start]] != sizes[order[end - 1]]
            if end - start > 1 and (padded > limit or mixed):
                break
            cost = best[start] + padded + overhead
            if cost < best[end]:
                best[end], start_of[end] = cost, start
    batches: list[list[int]] = []
    end = len(order)
    while end:
        start = start_of[end]
        batches.append([items[index] for index in order[start:end]])
        end = start
    return batches[::-1]


def evaluation_batches(
    sizes: Sequence[int] | NDArray[np.int64], limit: int, most: int, uniform: bool = False
) -> list[list[int]]:
    """Batch all examples, longest first.

    Args:
        limit: maximum number of padded tokens per batch.
        most: maximum number of examples per batch.
        uniform: group only examples of one size.
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


def batches_of_rank(
    batches: Sequence[list[int]], world: int, rank: int
) -> list[tuple[int, list[int]]]:
    """Return this rank's batches with their index in the step; some may be empty.

    All ranks get the same number of batches, since they take part in collective operations.
    """
    most = -(-len(batches) // world)
    indices = range(rank, most * world, world)
    return [(index, list(batches[index]) if index < len(batches) else []) for index in indices]

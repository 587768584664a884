"""Selection bias: by how much the best of several validation scores is too high by chance."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist, stdev

import numpy as np


def expected_maximum(count: int) -> float:
    """Return the expected maximum of so many independent standard normal draws."""
    if count < 2:
        return 0.0
    grid = np.linspace(-8.0, 8.0, 8001)
    normal = NormalDist()
    below = np.array([normal.cdf(value) for value in grid])
    density = np.array([normal.pdf(value) for value in grid])
    return float(np.trapezoid(grid * count * density * below ** (count - 1), grid))


def of_folds(folds: Sequence[float], count: int) -> float:
    """Return the same for the mean of folds, whose standard error is taken as that of independent scores."""
    error: float = stdev(folds) / len(folds) ** 0.5
    return round(error * expected_maximum(count), 4)


def of_best(interval: Sequence[float] | None, count: int) -> float | None:
    """Return by how much the best of `count` trials that are equally good would exceed their true score.

    It is an upper bound: trials are scored on the same rows, so that their noise is partly shared.

    interval: the 95% interval of a score on the validation rows.
    """
    if interval is None:
        return None
    low, high = interval
    return round((high - low) / (2 * 1.96) * expected_maximum(count), 4)

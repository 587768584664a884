"""95% confidence intervals of metrics, or the reason for which a metric has none."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, sqrt
from typing import Any

import numpy as np

from hubtune.contract import Prediction, Task

MIN_ROWS = 10
"""Different rows from which resampling is tried: with fewer, its percentiles are far too narrow."""
MAX_UNDEFINED = 0.05
"""Share of the resamples in which a metric may be undefined."""
Z = 1.959963984540054
"""Quantile of the normal distribution for 95%."""
Scores = Mapping[str, float]


@dataclass(frozen=True)
class Intervals:
    """Intervals by metric, [low, high], and the reason for each metric that has none."""

    bounds: dict[str, list[float]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


def confidence_intervals(
    task: Task[Any], scores: Scores, predictions: Sequence[Prediction], rows: Sequence[Any],
    score: Callable[[list[Prediction], list[Any]], Scores], seed: int = 0,
) -> Intervals:
    """Compute the interval of every metric.

    Those of `task.shares` have Wilson's; others, percentiles of the metric on resampled rows (Efron
    and Tibshirani, An Introduction to the Bootstrap, 1993). Equal rows are one observation: they
    are resampled together, and count less in Wilson's.

    Args:
        scores: the metrics of all rows.
        score: computes the metrics of some predictions and rows.
    """
    found = Intervals()
    groups = equal_rows(rows)
    resampled = {}
    for name, value in scores.items():
        if not isfinite(value):
            found.reasons[name] = f"it is {value} on these rows"
        elif name in task.shares and 0 <= value <= 1:
            found.bounds[name] = wilson(value, effective_count(map(len, groups)))
        elif reason := too_few(task, groups):
            found.reasons[name] = reason
        else:
            resampled[name] = value
    if resampled:
        samples = resample(task.bootstrap_samples, groups, predictions, rows, score, seed)
        for name in resampled:
            result = percentiles([sample.get(name, float("nan")) for sample in samples])
            if isinstance(result, str):
                found.reasons[name] = result
            else:
                found.bounds[name] = result
    return found


def too_few(task: Task[Any], groups: Sequence[Any]) -> str | None:
    """Return the reason for which rows cannot be resampled; None if they can."""
    if not task.bootstrap_samples:
        return "the task does not resample its rows"
    if len(groups) < MIN_ROWS:
        return f"of {len(groups)} different row{'s' * (len(groups) > 1)} (at least {MIN_ROWS} are needed)"
    return None


def wilson(share: float, count: float) -> list[float]:
    """Compute the score interval of a share of `count` observations (Wilson, 1927).

    It is never of length 0: 1 of 1 gives 0.2065 to 1, and 20 of 20 gives 0.8389 to 1.
    """
    spread = Z * sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
    center, scale = share + Z**2 / (2 * count), 1 + Z**2 / count
    low, high = (center - spread) / scale, (center + spread) / scale
    return [round(max(0.0, low), 6), round(min(1.0, high), 6)]


def effective_count(sizes: Iterable[int]) -> float:
    """Return how many independent observations groups of equal rows are worth (Kish, 1965)."""
    each = list(sizes)
    return float(sum(each) ** 2 / sum(size**2 for size in each))


def equal_rows(rows: Sequence[Any]) -> list[list[int]]:
    """Group the numbers of equal rows, in their order; rows with images or sound differ."""
    groups: dict[Any, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        try:
            key: Any = hash(json.dumps(row, sort_keys=True))
        except (TypeError, ValueError):
            key = ("row", number)
        groups[key].append(number)
    return list(groups.values())


def resample(
    count: int, groups: Sequence[Sequence[int]], predictions: Sequence[Prediction],
    rows: Sequence[Any], score: Callable[[list[Prediction], list[Any]], Scores], seed: int,
) -> list[Scores]:
    """Score `count` samples of the rows with replacement; none of a sample that has no scores."""
    rng = np.random.default_rng(seed)
    samples: list[Scores] = []
    for _ in range(count):
        drawn = rng.integers(0, len(groups), len(groups)).tolist()
        numbers = [number for group in drawn for number in groups[group]]
        try:
            samples.append(score([predictions[n] for n in numbers], [rows[n] for n in numbers]))
        except (ValueError, ZeroDivisionError):  # such as of a sample with one label
            samples.append({})
    return samples


def percentiles(values: Sequence[float]) -> list[float] | str:
    """Return the 2.5th and 97.5th percentile, or the reason for which they say nothing."""
    known = [value for value in values if isfinite(value)]
    undefined = len(values) - len(known)
    if undefined > MAX_UNDEFINED * len(values):
        return f"it is undefined in {undefined} of {len(values)} resamples of the rows"
    if min(known) == max(known):
        return "it is the same in every resample of the rows"
    return [round(float(np.percentile(known, q)), 6) for q in (2.5, 97.5)]

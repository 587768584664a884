"""Metrics of predictions, with bootstrap confidence intervals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from hubtune.contract import Base, Prediction, Task
from hubtune.contract.validation import checked


def score(
    task: Task[Any], predictions: Sequence[Prediction], rows: Sequence[Any], base: Base
) -> dict[str, float]:
    """Compute the task's metrics of one prediction per labelled row."""
    return checked(task, "score", task.score(predictions, rows, base))


def evaluate(
    task: Task[Any], predictions: Sequence[Prediction], rows: Sequence[Any], base: Base
) -> dict[str, Any]:
    """Compute metrics, their confidence intervals and the task's report."""
    return {
        "metrics": score(task, predictions, rows, base),
        "intervals": confidence_intervals(task, predictions, rows, base),
        "report": checked(task, "report", task.report(predictions, rows, base)),
    }


def confidence_intervals(
    task: Task[Any],
    predictions: Sequence[Prediction],
    rows: Sequence[Any],
    base: Base,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Compute the 95% interval of every metric.

    Percentiles over resampled rows (Efron and Tibshirani, An Introduction to the Bootstrap, 1993).
    """
    rng = np.random.default_rng(seed)
    values: dict[str, list[float]] = defaultdict(list)
    for _ in range(task.bootstrap_samples):
        chosen = rng.integers(0, len(rows), len(rows)).tolist()
        resampled = task.score([predictions[i] for i in chosen], [rows[i] for i in chosen], base)
        for name, value in resampled.items():
            values[name].append(value)
    return {
        name: [round(float(np.nanpercentile(samples, q)), 6) for q in (2.5, 97.5)]
        for name, samples in values.items()
    }

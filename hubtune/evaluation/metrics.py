"""Metrics of predictions, with bootstrap confidence intervals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from hubtune.contract import Base, ClassificationTask, Metric, Prediction, Task
from hubtune.contract.validation import checked


def score(
    task: Task[Any], predictions: Sequence[Prediction], rows: Sequence[Any], base: Base
) -> dict[str, float]:
    """Compute the task's metrics and those of the recipe, of one prediction per labelled row."""
    scores = checked(task, "score", task.score(predictions, rows, base))
    if not isinstance(task, ClassificationTask) or not task.metric_functions:
        return scores
    references, answers = checked(
        task, "class_answers", task.class_answers(predictions, rows, base)
    )
    labels = [] if task.label_kind() == "regression" else list(base.config.label2id)
    chosen = {
        function.name: float(
            checked(function, "compute", function.compute(references, answers, labels))
        )
        for function in task.metric_functions
    }
    return {**scores, **chosen}


def deciding(task: Task[Any], base: Base) -> Metric:
    """Return the metric that decides which weights are best: the recipe's, or the task's."""
    if isinstance(task, ClassificationTask) and task.best_metric is not None:
        return task.best_metric
    return checked(task, "select_metric", task.select_metric(base))


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
        resampled = score(
            task, [predictions[i] for i in chosen], [rows[i] for i in chosen], base
        )
        for name, value in resampled.items():
            values[name].append(value)
    return {
        name: [round(float(np.nanpercentile(samples, q)), 6) for q in (2.5, 97.5)]
        for name, samples in values.items()
    }

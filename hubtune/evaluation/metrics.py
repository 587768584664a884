"""Metrics of predictions, with what they have to be read with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hubtune.contract import Base, ClassificationTask, Metric, Prediction, Task
from hubtune.contract.validation import checked
from hubtune.evaluation import decisions
from hubtune.evaluation.baselines import compare_with_constant
from hubtune.evaluation.intervals import confidence_intervals


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
    task: Task[Any], predictions: Sequence[Prediction], rows: Sequence[Any], base: Base,
    fitted: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Compute metrics, their confidence intervals, baselines, warnings and the task's report.

    `intervals` and `no_intervals` (the reasons) together have every metric; `undecided` has the metrics and the
    report without the decisions.

    Args:
        predictions: before any decision.
        fitted: the decisions that were fitted on validation rows.
    """
    before, predictions = predictions, decisions.apply(task, predictions, fitted or {})
    scores = score(task, predictions, rows, base)
    intervals = confidence_intervals(
        task, scores, predictions, rows, lambda some, their: score(task, some, their, base))
    baselines, warnings = compare_with_constant(
        task, predictions, rows, base, scores, intervals)
    return {
        "metrics": scores,
        "intervals": intervals.bounds,
        "no_intervals": intervals.reasons,
        "baselines": baselines,
        "warnings": warnings,
        "report": checked(task, "report", task.report(predictions, rows, base)),
        "undecided": undecided(task, before, rows, base) if fitted else {},
    }


def undecided(
    task: Task[Any], predictions: Sequence[Prediction], rows: Sequence[Any], base: Base
) -> dict[str, Any]:
    """Compute the metrics and the report that the model has without its decisions."""
    return {
        "metrics": score(task, predictions, rows, base),
        "report": checked(task, "report", task.report(predictions, rows, base)),
    }

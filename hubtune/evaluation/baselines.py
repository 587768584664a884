"""Scores of the best constant answer, and warnings of a model that does no better."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from hubtune.contract import Base, ClassificationTask, Prediction, Task
from hubtune.contract.validation import checked
from hubtune.errors import listing
from hubtune.evaluation.intervals import Intervals

Baselines = dict[str, dict[str, Any]]
"""By the metric that it is compared with: its `value`, and the constant `answer`."""


def compare_with_constant(
    task: Task[Any], predictions: Sequence[Prediction], rows: Sequence[Any], base: Base,
    scores: Mapping[str, float], intervals: Intervals,
) -> tuple[Baselines, list[str]]:
    """Return the scores of the best constant answer, and warnings about the model beside them.

    Nothing for tasks without labels.
    """
    if not isinstance(task, ClassificationTask):
        return {}, []
    right, given = checked(task, "class_answers", task.class_answers(predictions, rows, base))
    if not len(right):
        return {}, []
    kind = task.label_kind()
    if kind == "regression":
        return compare_with_mean(right, scores, intervals)
    names = list(base.config.label2id)
    unit = "rows" if len(right) == len(rows) else "words"
    right, given = label_sets(right, kind), label_sets(given, kind)
    constant, count = Counter(right).most_common(1)[0]
    answer = " and ".join(repr(names[index]) for index in constant) or "no label"
    baselines: Baselines = {"accuracy": {"value": round(count / len(right), 6), "answer": answer}}
    warnings = one_sided(right, given, names, unit)
    if count == len(right):
        return baselines, [f"{everyone(len(right), unit)} {answer}: scores on that say nothing about "
                           "other labels", *warnings]
    accuracy = sum(map(tuple.__eq__, right, given)) / len(right)
    interval = intervals.bounds.get("accuracy") if "accuracy" in scores else None
    warnings += no_better("accuracy", accuracy, interval, count / len(right), answer)
    return baselines, warnings


def everyone(count: int, unit: str) -> str:
    """Begin a sentence about all rows or words: `all 4 rows have`, `the only row has`."""
    return f"all {count} {unit} have" if count > 1 else f"the only {unit[:-1]} has"


def label_sets(answers: Sequence[Any], kind: str) -> list[tuple[int, ...]]:
    """Return the ids of each answer's labels, from an id, or from zeros and ones."""
    if kind == "multi_label":
        return [tuple(index for index, flag in enumerate(answer) if flag) for answer in answers]
    return [(int(answer),) for answer in answers]


def one_sided(
    right: Sequence[tuple[int, ...]], given: Sequence[tuple[int, ...]], names: Sequence[str], unit: str
) -> list[str]:
    """Warn of a model that gives one answer only, or that never gives some of the right labels."""
    if len(set(given)) == 1 and len(set(right)) > 1:
        answer = " and ".join(repr(names[index]) for index in given[0]) or "no label"
        return [f"the model answers {answer} for all {len(given)} {unit}"]
    ever = {index for answer in given for index in answer}
    counts = Counter(index for answer in right for index in answer)
    never = [f"{names[index]!r} ({count} {unit if count > 1 else unit[:-1]})" for index, count in counts.most_common()
             if index not in ever]
    if not never:
        return []
    return [f"the model never gives {len(never)} of {len(counts)} labels: {listing(never, 5)}"]


def no_better(
    name: str, value: float, interval: Sequence[float] | None, constant: float, answer: str,
    higher: bool = True,
) -> list[str]:
    """Warn where a score is not above, or not clearly above, that of a constant answer."""
    if value <= constant if higher else value >= constant:
        return [f"{name} {value:.4f} is no better than always answering {answer} ({constant:.4f})"]
    if interval and (interval[0] <= constant if higher else interval[1] >= constant):
        low, high = interval
        return [f"{name} {value:.4f} (95% interval {low:.4f} to {high:.4f}) is not clearly better "
                f"than always answering {answer} ({constant:.4f})"]
    return []


def compare_with_mean(
    right: Sequence[float], scores: Mapping[str, float], intervals: Intervals
) -> tuple[Baselines, list[str]]:
    """Compare the error of predicted numbers with that of their mean, which is their deviation."""
    mean = sum(right) / len(right)
    error = (sum((value - mean) ** 2 for value in right) / len(right)) ** 0.5
    answer = f"the mean {mean:.4g}"
    baselines: Baselines = {"rmse": {"value": round(error, 6), "answer": answer}}
    if "rmse" not in scores:
        return {}, []
    if error == 0:
        return baselines, [f"{everyone(len(right), 'rows')} {mean:.4g}: scores on that say nothing about other numbers"]
    return baselines, no_better(
        "rmse", scores["rmse"], intervals.bounds.get("rmse"), error, answer, higher=False)

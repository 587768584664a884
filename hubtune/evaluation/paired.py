"""The paired difference of two models' scores on the same rows, with its 95% interval."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any, Literal

from hubtune.contract import Base, ClassificationTask, Metric, Prediction, Task
from hubtune.evaluation import intervals, metrics

SEED = 0
"""Of the resamples: the same for both models, so that each resample has the same rows for both."""
MIN_DIFFERENT = 6
"""Rows that must be scored differently: of 5, all in favour of one model, a sign test has p = 0.0625."""


@dataclass(frozen=True)
class Difference:
    """Difference of a metric between two models on the same rows, such as a new one and that on main.

    value: new minus standing, negated where lower is better, so that above 0 the new one is better.
    interval: of `value`, 95%; None: it has none, for `reason`.
    """

    metric: str
    new: float
    standing: float
    value: float
    interval: list[float] | None
    reason: str = ""

    @property
    def verdict(self) -> Literal["better", "worse", "uncertain"]:
        """Return which model is better, or "uncertain" where the interval contains 0."""
        if self.interval is None or self.interval[0] <= 0 <= self.interval[1]:
            return "uncertain"
        return "better" if self.interval[0] > 0 else "worse"

    def text(self) -> str:
        """Describe it in one sentence, without a full stop."""
        certainty = f"no interval: {self.reason}"
        if self.interval:
            low, high = self.interval
            certainty = f"95% interval {low:+.4f} to {high:+.4f}; above 0 is better"
        return (f"{self.metric} is {self.new:.4f} instead of {self.standing:.4f}, a difference of "
                f"{self.value:+.4f} ({certainty})")

    def as_json(self) -> dict[str, Any]:
        """Return its values, null for a number that is not finite, which JSON has not."""
        return {name: None if isinstance(value, float) and not isfinite(value) else value
                for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Answers:
    """A model's predictions, with the task and the base that they are scored with."""

    task: Task[Any]
    base: Base
    predictions: list[Prediction]

    def score(self, predictions: list[Prediction], rows: list[Any]) -> dict[str, float]:
        """Compute the metrics of some predictions and rows."""
        return metrics.score(self.task, predictions, rows, self.base)


def difference(name: str, ours: Answers, theirs: Answers, rows: list[Any]) -> Difference:
    """Compute the paired difference of a metric, with a bootstrap interval.

    Both models are scored on the same resamples of the rows, so what is hard about a row for both
    cancels out (Efron and Tibshirani, An Introduction to the Bootstrap, 1993).
    """
    sign = 1 if deciding(name, ours).higher_is_better else -1
    groups, undefined = intervals.equal_rows(rows), float("nan")
    new, standing = (one.score(one.predictions, rows).get(name, undefined) for one in (ours, theirs))
    found: list[float] | str | None = intervals.too_few(ours.task, groups)
    if found is None:
        both = [intervals.resample(ours.task.bootstrap_samples, groups, one.predictions, rows,
                                   one.score, SEED) for one in (ours, theirs)]
        found = intervals.percentiles(paired(name, sign, *both))
        if isinstance(found, list) and not found[0] <= 0 <= found[1]:
            found = too_alike(name, ours, theirs, groups, rows) or found
    value = sign * (new - standing)
    if isinstance(found, str):
        return Difference(name, new, standing, value, None, found)
    return Difference(name, new, standing, value, found)


def too_alike(
    name: str, ours: Answers, theirs: Answers, groups: Sequence[Sequence[int]], rows: list[Any]
) -> str | None:
    """Return the reason if too few rows are scored differently for an interval; None otherwise.

    Where few are, and all favour one model, hardly a resample is without any of them, and the
    percentiles are too narrow. A row that has no score of its own counts as different.
    """
    different = 0
    for _, value in differences_by_row(name, ours, theirs, groups, rows):
        different += value != 0  # also where it is not defined
        if different == MIN_DIFFERENT:
            return None
    return f"only {different} rows are scored differently (at least {MIN_DIFFERENT} are needed)"


def differences_by_row(
    name: str, ours: Answers, theirs: Answers, groups: Sequence[Sequence[int]], rows: list[Any]
) -> Iterator[tuple[Sequence[int], float]]:
    """Yield groups of rows with the signed difference of their score; NaN where either has none."""
    sign = 1 if deciding(name, ours).higher_is_better else -1
    for group in groups:
        mine, other = (intervals.resample(1, [group], one.predictions, rows, one.score, SEED)
                       for one in (ours, theirs))
        yield group, paired(name, sign, mine, other)[0]


def paired(
    name: str, sign: int, ours: Sequence[Mapping[str, float]], theirs: Sequence[Mapping[str, float]]
) -> list[float]:
    """Return the signed difference of a metric in every resample; NaN where either has none."""
    missing = float("nan")
    return [sign * (mine.get(name, missing) - other.get(name, missing))
            for mine, other in zip(ours, theirs, strict=True)]


def deciding(name: str, answers: Answers) -> Metric:
    """Return the metric that chose the run's weights: one of the recipe's, or the task's."""
    task = answers.task
    if isinstance(task, ClassificationTask):
        for function in task.metric_functions:
            if function.name == name:
                return Metric(name, function.higher_is_better)
    return metrics.deciding(task, answers.base)

"""Intervals: Wilson's for shares, resampling where there are rows enough, and else a reason."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from toy import Numbers

from hubtune.evaluation.intervals import confidence_intervals, effective_count, equal_rows, wilson


class Graded(Numbers):
    """A task whose predictions hold the row's own score."""

    shares = ("accuracy",)


def found(values: list[float], names: Callable[[list[float]], dict[str, float]], rows: list[Any] | None = None, task: Any = None) -> Any:
    """Intervals of the metrics that `names` makes of each row's value."""
    rows = rows or [{"text": str(number)} for number in range(len(values))]
    predictions = [{"value": value} for value in values]
    return confidence_intervals(
        task or Graded(), names(values), predictions, rows, lambda some, _: names([p["value"] for p in some]))


def accuracy(values: list[float]) -> dict[str, float]:
    return {"accuracy": sum(values) / len(values)}


@pytest.mark.parametrize(("right", "count", "low", "high"), [
    (1, 1, 0.206549, 1.0), (0, 1, 0.0, 0.793451), (20, 20, 0.838875, 1.0), (0, 20, 0.0, 0.161125),
    (9, 10, 0.59585, 0.982124), (50, 100, 0.403832, 0.596168),
])
def test_shares_have_wilson_s_interval(right: int, count: int, low: float, high: float) -> None:
    values = [1.0] * right + [0.0] * (count - right)
    assert found(values, accuracy).bounds["accuracy"] == pytest.approx([low, high], abs=1e-6)


def test_wilson_is_scipy_s() -> None:
    from scipy.stats import binomtest

    for count in (1, 7, 40, 1000):
        for right in {0, 1, count // 2, count - 1, count}:
            theirs = binomtest(right, count).proportion_ci(method="wilson")
            assert wilson(right / count, count) == pytest.approx([theirs.low, theirs.high], abs=1e-6)


def test_equal_rows_are_one_observation() -> None:
    rows = [{"text": "same"}] * 100
    assert found([1.0] * 100, accuracy, rows).bounds["accuracy"] == pytest.approx([0.206549, 1.0], abs=1e-6)
    halves = [{"text": str(number % 50)} for number in range(100)]
    assert found([1.0] * 100, accuracy, halves).bounds == found([1.0] * 50, accuracy).bounds
    assert effective_count([1] * 99 + [101]) < 4


def test_rows_with_images_or_bytes_differ() -> None:
    rows = [{"image": b"1", "label": 1}, {"image": b"1", "label": 1}, {"text": "a"}, {"text": "a"}]
    assert [len(group) for group in equal_rows(rows)] == [1, 1, 2]


def test_other_metrics_are_resampled() -> None:
    low, high = found([n / 100 for n in range(100)], lambda values: {"mean": sum(values) / len(values)}).bounds["mean"]
    assert low < 0.495 < high
    assert 0.08 < high - low < 0.16


@pytest.mark.parametrize(("values", "metric", "reason"), [
    ([0.1] * 9, lambda v: sum(v) / len(v), "of 9 different rows (at least 10 are needed)"),
    ([0.5] * 30, lambda v: sum(v) / len(v), "it is the same in every resample of the rows"),
    ([1.0] * 30, lambda v: math.nan, "it is nan on these rows"),
    ([1.0] * 30, lambda v: math.inf, "it is inf on these rows"),
])
def test_a_metric_without_an_interval_has_a_reason(values: Any, metric: Any, reason: str) -> None:
    result = found(values, lambda some: {"other": metric(some)})
    assert (result.bounds, result.reasons) == ({}, {"other": reason})


def test_a_metric_that_is_undefined_in_many_resamples_has_none() -> None:
    def one_label(values: list[float]) -> dict[str, float]:
        return {"auc": 0.5 if any(values) else math.nan}

    def refused(values: list[float]) -> dict[str, float]:
        return {"auc": 1 / sum(values)}  # ZeroDivisionError without a row of 1

    for metric in (one_label, refused):
        reason = found([1.0, *[0.0] * 29], metric).reasons["auc"]
        assert reason.startswith("it is undefined in ")
        assert reason.endswith(" of 200 resamples of the rows")


def test_a_task_may_not_resample() -> None:
    class Slow(Graded):
        bootstrap_samples = 0

    result = found([0.0, 1.0] * 10, lambda v: {**accuracy(v), "map": 0.5}, task=Slow())
    assert result.reasons == {"map": "the task does not resample its rows"}
    assert list(result.bounds) == ["accuracy"]


def test_every_metric_has_an_interval_or_a_reason() -> None:
    result = found([1.0], lambda v: {**accuracy(v), "f1": 1.0, "pearson": math.nan})
    assert result.bounds.keys() | result.reasons.keys() == {"accuracy", "f1", "pearson"}
    assert not result.bounds.keys() & result.reasons.keys()

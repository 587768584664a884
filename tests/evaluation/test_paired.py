"""The paired difference of two models: its sign, its interval, and when there is none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hubtune import Base, Metric
from hubtune.evaluation import intervals, metrics
from hubtune.evaluation.paired import Answers, Difference, difference


class Rated:
    """A task that scores the share of right answers, and of wrong ones."""

    shares: tuple[str, ...] = ()
    bootstrap_samples = 200

    def __init__(self, metric: Metric) -> None:
        self.metric = metric

    def score(self, predictions: Any, rows: Any, base: Any) -> dict[str, float]:
        right = sum(found["label"] == row["label"] for found, row in zip(predictions, rows, strict=True)) / len(rows)
        return {"right": right, "wrong": 1 - right}

    def select_metric(self, base: Any) -> Metric:
        return self.metric


ROWS = [{"text": str(n), "label": n % 2} for n in range(100)]


@pytest.fixture(autouse=True)
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that is no subclass of Task is not checked."""
    monkeypatch.setattr(metrics, "checked", lambda plugin, name, value: value)


def answers(wrong: range, metric: Metric = Metric("right", True)) -> Answers:  # noqa: B008
    """Predictions that are wrong for some rows."""
    found = [{"label": row["label"] ^ (n in wrong)} for n, row in enumerate(ROWS)]
    task: Any = Rated(metric)
    return Answers(task, Base("tiny", "", SimpleNamespace(), None), found)


@pytest.mark.parametrize(("ours", "theirs", "verdict"), [
    (range(10), range(30), "better"), (range(30), range(10), "worse"), (range(10), range(11), "uncertain"),
    (range(10), range(10), "uncertain"), (range(10), range(50, 60), "uncertain"),
])
def test_the_verdict_follows_the_interval(ours: range, theirs: range, verdict: str) -> None:
    found = difference("right", answers(ours), answers(theirs), ROWS)
    assert found.verdict == verdict
    assert found.value == pytest.approx((len(theirs) - len(ours)) / 100)


def test_the_sign_is_turned_where_lower_is_better() -> None:
    metric = Metric("wrong", False)
    found = difference("wrong", answers(range(10), metric), answers(range(30), metric), ROWS)
    assert (found.verdict, round(found.value, 6)) == ("better", 0.2)
    assert (round(found.new, 6), round(found.standing, 6)) == (0.1, 0.3)


def test_the_difference_is_paired() -> None:
    """Both models share 30 errors, which cancel out: the interval is that of 8 rows, not of 30 and 38."""
    ours, theirs = answers(range(30)), answers(range(38))
    found = difference("right", ours, theirs, ROWS)
    assert found.verdict == "better"
    alone = [intervals.percentiles([one["right"] for one in intervals.resample(
        200, intervals.equal_rows(ROWS), each.predictions, ROWS, each.score, seed)])
        for seed, each in enumerate((ours, theirs))]
    (low, _), (_, high) = alone
    assert low < high  # the intervals of each model alone overlap


def test_few_rows_and_a_metric_that_is_missing_give_no_interval() -> None:
    few = ROWS[:8]
    ours, theirs = (Answers(one.task, one.base, one.predictions[:8]) for one in (answers(range(0)), answers(range(8))))
    found = difference("right", ours, theirs, few)
    assert (found.verdict, found.interval) == ("uncertain", None)
    assert "of 8 different rows" in found.text()
    found = difference("other", answers(range(10)), answers(range(30)), ROWS)
    assert (found.verdict, found.interval) == ("uncertain", None)
    assert "undefined in 200 of 200" in found.reason


def test_few_rows_that_are_scored_differently_decide_nothing() -> None:
    """Of 5 rows, hardly a resample is without any: the percentiles alone would say better."""
    found = difference("right", answers(range(10)), answers(range(15)), ROWS)
    assert (found.verdict, found.interval) == ("uncertain", None)
    assert found.reason == "only 5 rows are scored differently (at least 6 are needed)"
    assert difference("right", answers(range(10)), answers(range(16)), ROWS).verdict == "better"


def test_an_interval_that_touches_0_is_uncertain() -> None:
    assert Difference("right", 0.9, 0.8, 0.1, [0.0, 0.2]).verdict == "uncertain"

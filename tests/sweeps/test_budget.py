"""What a sweep may still begin, and how much the best of many scores flatters itself."""

from __future__ import annotations

import pytest

from hubtune import RecipeError
from hubtune.sweeps.budget import Budget, seconds_of
from hubtune.sweeps.optimism import expected_maximum, of_best, of_folds
from hubtune.sweeps.trials import Trial, best_of


def trial(number: int, state: str = "complete", score: float | None = 0.5, **values: float) -> Trial:
    return Trial(number, "m", "full", state=state, score=score, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("30min", 1800), ("1.5h", 5400), ("2", 2), (60, 60), ("1d", 86400)])
def test_budgets_of_time(text: str | float, seconds: float) -> None:
    assert seconds_of(text) == seconds


def test_budgets_of_money_need_the_price_of_an_hour() -> None:
    assert seconds_of("2usd", price=4.0) == seconds_of("2 EUR", price=4.0) == 1800
    with pytest.raises(RecipeError, match="price of an hour") as refused:
        seconds_of("2usd")
    assert "--budget 2usd --price 1.5" in (refused.value.hint or "")
    with pytest.raises(RecipeError, match="budget of money"):
        seconds_of("30m", price=4.0)


@pytest.mark.parametrize("text", ["", "m", "-3m", "0", "3 weeks"])
def test_other_budgets_are_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="30m"):
        seconds_of(text)


def test_trials_that_ended_or_run_are_counted_but_not_those_that_never_began() -> None:
    states = ("complete", "pruned", "failed", "running", "refused", "too-long", "interrupted")
    trials = [trial(number, state) for number, state in enumerate(states)]
    assert Budget(trials=4).is_used_up(trials, None)
    assert not Budget(trials=5).is_used_up(trials, None)
    assert not Budget().is_used_up(trials, None)


def test_the_winner_of_a_trial_of_folds_costs_one_of_its_trainings() -> None:
    folded = Trial(0, "m", "full", state="complete", score=0.5, folds=[0.4, 0.6], seconds=20.0)
    assert Budget(60.0).left([folded], folded) == 30.0
    assert of_folds([0.4, 0.6], 1) == 0.0
    assert of_folds([0.4, 0.6], 2) == pytest.approx(0.1 * expected_maximum(2), abs=1e-4)


def test_time_is_left_for_the_winner() -> None:
    trials = [trial(0, seconds=20.0), trial(1, "pruned", seconds=10.0)]
    assert Budget(60.0).left(trials, trials[0]) == 10.0
    assert Budget(50.0).is_used_up(trials, trials[0])
    assert not Budget(51.0).is_used_up(trials, trials[0])


def test_cost_comes_from_earlier_trials_and_from_the_plan_for_the_first() -> None:
    budget, plans = Budget(100.0), []

    def measure() -> tuple[float, float]:
        plans.append(1)
        return 30.0, 10.0

    new = trial(5, "running", planned_epochs=4.0)
    assert budget.estimate(new, [], measure) == 12.0
    assert budget.estimate(new, [trial(0, "failed", seconds=50.0, epochs=1.0)], measure) == 12.0
    assert len(plans) == 1
    earlier = [trial(0, seconds=8.0, epochs=4.0), trial(1, "pruned", seconds=5.0, epochs=1.0)]
    assert budget.estimate(new, earlier, measure) == 20.0
    assert len(plans) == 1


def test_the_best_is_complete_and_the_earliest_of_equal_ones() -> None:
    trials = [trial(0, score=0.5), trial(1, score=0.7), trial(2, score=0.7), trial(3, "pruned", 0.9), trial(4, "failed", None)]
    best, lowest = best_of(trials, True), best_of(trials, False)
    assert best is not None
    assert lowest is not None
    assert (best.number, lowest.number) == (1, 0)
    assert best_of(trials[3:], True) is None


@pytest.mark.parametrize(("count", "value"), [(1, 0.0), (2, 0.56419), (5, 1.16296), (10, 1.53875), (100, 2.50759)])
def test_the_expected_maximum_of_normal_draws_is_that_of_tables(count: int, value: float) -> None:
    assert expected_maximum(count) == pytest.approx(value, abs=1e-4)


def test_the_gain_by_chance_is_in_the_metric_s_units() -> None:
    assert of_best((0.8, 0.996), 10) == pytest.approx(0.05 * 1.53875, abs=1e-4)
    assert of_best(None, 10) is None

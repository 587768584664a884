"""When steps, rates and validations come, from the settings and a number alone."""

from __future__ import annotations

import itertools

import pytest

from hubtune.recipe import TrainConfig
from hubtune.training.schedule import count_steps, is_validation_step, phase_ends, rate

SCHEDULES = ("linear", "cosine", "constant")


@pytest.mark.parametrize(("settings", "rows", "wanted"), [
    (TrainConfig(epochs=3, batch_size=16), 100, (7, 21)), (TrainConfig(epochs=0.5, batch_size=16), 100, (7, 4)),
    (TrainConfig(epochs=0.001, batch_size=16), 100, (7, 1)), (TrainConfig(max_steps=5, batch_size=16), 100, (7, 5)),
    (TrainConfig(epochs=2, batch_size=64), 3, (1, 2)), (TrainConfig(max_steps=50, batch_size=10), 100, (10, 50)),
])
def test_steps_of_an_epoch_and_in_all(settings: TrainConfig, rows: int, wanted: tuple[int, int]) -> None:
    assert count_steps(settings, rows) == wanted


@pytest.mark.parametrize("settings", [TrainConfig(epochs=3), TrainConfig(batch_size=8)])
def test_settings_with_something_open_have_no_steps(settings: TrainConfig) -> None:
    with pytest.raises(ValueError, match="left open"):
        count_steps(settings, 100)


@pytest.mark.parametrize(("schedule", "warmup", "steps"), list(itertools.product(
    SCHEDULES, (0.0, 0.06, 0.1, 0.99, 1.0, 5.0, 1000.0), (1, 2, 7, 100)
)))
def test_the_rate_goes_up_then_down_and_no_step_is_lost(schedule: str, warmup: float, steps: int) -> None:
    settings = TrainConfig(schedule=schedule, warmup=warmup)
    rates = [rate(settings, step, steps) for step in range(steps)]
    assert all(0 < value <= 1 for value in rates)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_a_warmup_the_first_step_has_the_whole_rate(schedule: str) -> None:
    assert rate(TrainConfig(schedule=schedule, warmup=0.0), 0, 50) == 1.0


def test_a_warmup_below_one_is_a_share_and_else_a_number_of_steps() -> None:
    share, steps = (TrainConfig(warmup=warmup) for warmup in (0.1, 10.0))
    assert [rate(share, step, 100) for step in range(100)] == [rate(steps, step, 100) for step in range(100)]
    assert rate(steps, 10, 100) == 1.0
    assert rate(steps, 0, 100) == pytest.approx(1 / 11)


def test_where_the_rates_end() -> None:
    last = {schedule: rate(TrainConfig(schedule=schedule, warmup=0.0), 99, 100) for schedule in SCHEDULES}
    assert last["constant"] == 1.0
    assert last["linear"] == pytest.approx(0.01)
    assert last["cosine"] < last["linear"]


@pytest.mark.parametrize(("times", "an_epoch"), list(itertools.product((None, 1, 2, 3, 5), (1, 2, 3, 7, 10))))
def test_validations_are_even_in_every_epoch_and_come_at_the_end(times: int | None, an_epoch: int) -> None:
    settings, steps = TrainConfig(evals_per_epoch=times), 3 * an_epoch + 1
    when = [step for step in range(1, steps + 1) if is_validation_step(settings, step, an_epoch, steps)]
    assert steps in when
    for epoch in range(3):
        own = [step - epoch * an_epoch for step in when if epoch * an_epoch < step <= (epoch + 1) * an_epoch]
        assert len(own) == min(times or 1, an_epoch)
        assert own[-1] == an_epoch
        gaps = [after - before for before, after in itertools.pairwise([0, *own])]
        assert max(gaps) - min(gaps) <= 1


def test_a_run_shorter_than_an_epoch_is_validated_once() -> None:
    assert [step for step in range(1, 5) if is_validation_step(TrainConfig(), step, 10, 4)] == [4]


def test_phases_end_where_their_shares_say() -> None:
    assert phase_ends([1.0], 10) == (10,)
    assert phase_ends([0.3, 0.7], 10) == (3, 10)
    assert phase_ends([1.0, 1.0, 2.0], 8) == (2, 4, 8)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("shares", [[1.0], [0.001, 0.999], [0.2, 0.3, 0.5], [0.01, 0.01, 0.98]])
def test_every_phase_has_a_step_where_there_are_enough(shares: list[float], steps: int) -> None:
    ends = phase_ends(shares, steps)
    assert ends[-1] == steps
    assert list(ends) == sorted(ends)
    if steps >= len(shares):
        assert len({0, *ends}) == len(shares) + 1

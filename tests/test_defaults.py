"""What a recipe leaves open is resolved by rows and parameters alone, and what the user set stays."""

from __future__ import annotations

import itertools

import pytest

from hubtune.defaults import OPEN, REFERENCE_PARAMETERS, WEIGHT_DECAY, batch_size, epochs, learning_rate, resolve
from hubtune.recipe import Recipe, TrainConfig, build
from hubtune.training.schedule import count_steps

ROWS = [1, 4, 8, 15, 16, 100, 480, 1000, 10_000, 49_999, 50_001, 10**6, 10**8]


def test_more_rows_never_mean_more_epochs() -> None:
    found = [epochs(rows) for rows in ROWS]
    assert found == sorted(found, reverse=True)
    assert (found[0], found[-1]) == (20.0, 1.0)
    assert epochs(10_000) == 5.0


def test_more_rows_never_mean_a_smaller_batch() -> None:
    found = [batch_size(rows) for rows in ROWS]
    assert found == sorted(found)
    assert (found[0], found[-1]) == (1, 32)
    assert all(rows / size >= 8 for rows, size in zip(ROWS, found, strict=True) if rows >= 8)


def test_larger_models_take_smaller_steps_within_bounds() -> None:
    rates = [learning_rate(1e-4, parameters) for parameters in (1, 10**6, 22 * 10**6, REFERENCE_PARAMETERS, 10**9, 10**12)]
    assert rates == sorted(rates, reverse=True)
    assert learning_rate(1e-4, REFERENCE_PARAMETERS) == 1e-4
    assert (rates[0], rates[-1]) == (1e-3, 2e-5)
    assert learning_rate(1e-4, 0) == 1e-3


@pytest.mark.parametrize(("rows", "parameters", "wishes"), list(itertools.product(
    (1, 100, 10**6), (1000, 10**9), ({}, {"train.learning_rate": 1e-3, "train.epochs": 20.0, "train.weight_decay": 0.0})
)))
def test_nothing_is_left_open(rows: int, parameters: int, wishes: dict[str, float]) -> None:
    resolved = resolve(TrainConfig(), wishes, rows, parameters)
    assert None not in (resolved.learning_rate, resolved.batch_size, resolved.epochs, resolved.weight_decay)
    an_epoch, steps = count_steps(resolved, rows)
    assert steps >= an_epoch >= 1


def test_what_the_user_set_stays() -> None:
    wishes = {"train.learning_rate": 1e-3, "train.epochs": 20.0, "train.weight_decay": 0.0, "train.batch_size": 64, "train.warmup": 0.5}
    mine = TrainConfig(learning_rate=7e-6, epochs=2.5, weight_decay=0.3, batch_size=3, warmup=0.2, sampler="random",
                       keep="last", early_stopping_patience=1)
    assert resolve(mine, wishes, 1000, 10**6) == mine


def test_what_the_user_set_stays_also_where_it_is_the_default() -> None:
    recipe = build({"task": {"name": "t"}, "model": {"id": "m"}, "train": {"weight_decay": WEIGHT_DECAY}})
    assert resolve(recipe.train, {"train.weight_decay": 0.0}, 1000, 10**6).weight_decay == WEIGHT_DECAY


def test_the_decay_is_the_user_s_else_the_strategy_s_else_the_general_one() -> None:
    assert resolve(TrainConfig(weight_decay=0.0), {"train.weight_decay": 0.2}, 1000, 10**6).weight_decay == 0.0
    assert resolve(TrainConfig(), {"train.weight_decay": 0.0}, 1000, 10**6).weight_decay == 0.0
    assert resolve(TrainConfig(), {}, 1000, 10**6).weight_decay == WEIGHT_DECAY


def test_a_strategy_s_wishes_come_before_the_general_rule() -> None:
    resolved = resolve(TrainConfig(), {"train.learning_rate": 2e-4, "train.epochs": 9.0, "train.batch_size": 5}, 1000, REFERENCE_PARAMETERS)
    assert (resolved.learning_rate, resolved.epochs, resolved.batch_size) == (2e-4, 9.0, 5)


@pytest.mark.parametrize(("key", "value"), [("warmup", 0.5), ("schedule", "constant"), ("max_grad_norm", 0.0)])
def test_a_strategy_has_no_wish_for_what_is_never_open(key: str, value: object) -> None:
    """Such a wish would be ignored, so the registry refuses it."""
    assert f"train.{key}" not in OPEN
    assert getattr(resolve(TrainConfig(), {f"train.{key}": value}, 1000, 10**6), key) != value


def test_which_weights_are_kept_is_the_user_s_else_the_strategy_s_else_the_best() -> None:
    wishes = {"train.keep": "last", "train.early_stopping_patience": 0}
    found = [resolve(mine, strategy, 1000, 10**6) for mine, strategy in (
        (TrainConfig(), {}), (TrainConfig(), wishes), (TrainConfig(keep="best", early_stopping_patience=2), wishes))]
    assert [(one.keep, one.early_stopping_patience) for one in found] == [("best", 3), ("last", 0), ("best", 2)]


@pytest.mark.parametrize("mine", [TrainConfig(), TrainConfig(epochs=3.0)])
def test_a_strategy_s_steps_and_epochs_are_not_both_settled(mine: TrainConfig) -> None:
    resolved = resolve(mine, {"train.max_steps": 5}, 1000, 10**6)
    assert (resolved.max_steps is None) != (resolved.epochs is None)


def test_steps_of_the_user_need_no_epochs() -> None:
    resolved = resolve(TrainConfig(max_steps=10), {}, 1000, 10**6)
    assert (resolved.max_steps, resolved.epochs) == (10, None)


def test_settled_settings_are_a_recipe_again() -> None:
    resolved = resolve(TrainConfig(max_steps=10), {"train.epochs": 20.0}, 1000, 10**6)
    tables = Recipe(build({"task": {"name": "t"}, "model": {"id": "m"}}).task, "m", train=resolved).as_dict()
    assert build(tables).train == resolved


def test_a_small_model_whose_batch_norms_stay_learns_no_faster_than_it_stands() -> None:
    small, large = 400_000, 10 * REFERENCE_PARAMETERS
    moving, still = (resolve(TrainConfig(), {"train.learning_rate": 4e-5}, 500, small, still=still).learning_rate for still in (False, True))
    assert (moving, still) == (4e-4, 4e-5)
    assert resolve(TrainConfig(), {}, 500, large, still=True).learning_rate == resolve(TrainConfig(), {}, 500, large).learning_rate
    assert resolve(TrainConfig(learning_rate=1e-3), {}, 500, small, still=True).learning_rate == 1e-3


def test_rows_of_similar_size_meet_unless_the_loss_compares_the_rows_of_a_step() -> None:
    assert [resolve(TrainConfig(), {}, 500, 10**6, additive=additive).sampler for additive in (True, False)] == ["length-bucketed", "random"]
    assert resolve(TrainConfig(sampler="random"), {}, 500, 10**6).sampler == "random"

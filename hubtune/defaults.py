"""What a recipe leaves open, from the size of the data and of the model: pure functions, said in the docs.

Measured on real data of several sizes; docs/decisions.md has the figures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from hubtune.recipe import TrainConfig

REFERENCE_PARAMETERS = 110_000_000
"""The model size that a strategy's `train.learning_rate` is given for: BERT-base."""
REFERENCE_RATE = 5e-5
"""The rate of a strategy that names none."""
OPEN = tuple(f"train.{item.name}" for item in dataclasses.fields(TrainConfig) if item.default is None)
"""What a strategy may have wishes for: the keys that a recipe leaves open."""
GROWTH = 10.0
"""How many times the rate may grow for a small model."""
WEIGHT_DECAY = 0.01
"""The decay where neither the user nor the strategy names one."""


def epochs(rows: int) -> float:
    """Passes over the data: 5 from one to twenty thousand rows; beyond, by the root of their number, 1 to 20."""
    factor = max(1.0, (1_000 / rows) ** 0.5) * min(1.0, (20_000 / rows) ** 0.5)
    return float(min(20, max(1, round(5 * factor))))


def batch_size(rows: int) -> int:
    """Rows a step: 16 up to 50 thousand rows, and 32 above. At least eight steps make an epoch."""
    largest = 16 if rows <= 50_000 else 32
    return int(max(1, min(largest, rows // 8)))


def learning_rate(reference: float, parameters: int, still: bool = False) -> float:
    """A strategy's rate for this model: smaller models take larger steps, by the root of their size.

    still: whether the model has batch norms that keep their statistics, which cannot follow such steps.
    """
    factor = (REFERENCE_PARAMETERS / max(1, parameters)) ** 0.5
    return float(f"{reference * min(1.0 if still else GROWTH, max(0.2, factor)):.2g}")


def sampler(additive: bool) -> str:
    """How rows meet: those of similar size, which saves a third of a step and holds the accuracy; anyhow where a loss compares
    the rows of a step, so that which rows these are is a part of what is learnt."""
    return "length-bucketed" if additive else "random"


def settle(
    train: TrainConfig, strategy: Mapping[str, Any], rows: int, parameters: int, *, still: bool = False, additive: bool = True
) -> TrainConfig:
    """The settings of a run with nothing left open: the user's, else the strategy's, else from the sizes and the loss."""
    wishes = {key.removeprefix("train."): value for key, value in strategy.items()}
    wishes["learning_rate"] = learning_rate(wishes.get("learning_rate", REFERENCE_RATE), parameters, still)
    wishes = {"batch_size": batch_size(rows), "epochs": epochs(rows), "weight_decay": WEIGHT_DECAY, "sampler": sampler(additive), **wishes}
    if train.max_steps is not None or train.epochs is not None:
        wishes.pop("max_steps", None)
    if train.max_steps is not None or "max_steps" in wishes:
        del wishes["epochs"]
    return dataclasses.replace(train, **{key: value for key, value in wishes.items() if getattr(train, key) is None})

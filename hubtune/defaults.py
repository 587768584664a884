"""Default settings, as functions of the size of the data and of the model. Pure.

Measured on real data of several sizes; docs/decisions.md has the figures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from hubtune.recipe import TrainConfig

REFERENCE_PARAMETERS = 110_000_000
"""Model size for which a strategy's `train.learning_rate` is given: BERT-base."""
REFERENCE_RATE = 5e-5
"""Learning rate of a strategy that sets none."""
OPEN = tuple(f"train.{item.name}" for item in dataclasses.fields(TrainConfig)
             if item.default is None)
"""Keys that a recipe leaves open, for which a strategy may have defaults."""
GROWTH = 10.0
"""Maximum factor by which the learning rate grows for a small model."""
WEIGHT_DECAY = 0.01
"""Weight decay where neither the user nor the strategy sets one."""
PATIENCE = 3
"""Validations without improvement after which training stops, where neither sets another."""


def epochs(rows: int) -> float:
    """Return the epochs: 5 from 1,000 to 20,000 rows, else scaled by the root, from 1 to 20."""
    factor = max(1.0, (1_000 / rows) ** 0.5) * min(1.0, (20_000 / rows) ** 0.5)
    return float(min(20, max(1, round(5 * factor))))


def batch_size(rows: int) -> int:
    """Return the batch size: 16 up to 50,000 rows, else 32, with at least eight steps per epoch."""
    largest = 16 if rows <= 50_000 else 32
    return int(max(1, min(largest, rows // 8)))


def learning_rate(reference: float, parameters: int, still: bool = False) -> float:
    """Scale a strategy's learning rate to a model: smaller models take larger steps, by the root.

    Args:
        reference: learning rate for `REFERENCE_PARAMETERS`.
        still: the model has batch norms with frozen statistics, which cannot follow larger steps.
    """
    factor = (REFERENCE_PARAMETERS / max(1, parameters)) ** 0.5
    return float(f"{reference * min(1.0 if still else GROWTH, max(0.2, factor)):.2g}")


def without_choice(train: TrainConfig) -> TrainConfig:
    """Return the settings of a training that its validation rows neither stop nor choose, unless the user says so.

    The score of a fold is then that of rows which nothing was chosen on, and the training on all rows takes as many steps.
    """
    patience = train.early_stopping_patience
    return dataclasses.replace(train, keep=train.keep or "last", early_stopping_patience=0 if patience is None else patience)


def sampler(additive: bool) -> str:
    """Choose the sampler: length-bucketed saves a third of a step at equal accuracy.

    Random where a loss compares the rows of a step, since batches are then part of the objective.
    """
    return "length-bucketed" if additive else "random"


def resolve(
    train: TrainConfig, strategy: Mapping[str, Any], rows: int, parameters: int, *,
    still: bool = False, additive: bool = True,
) -> TrainConfig:
    """Resolve all open settings: the user's, else the strategy's, else by sizes and loss.

    Args:
        strategy: defaults of the strategy, by recipe key.
        still: see `learning_rate`.
        additive: the loss is a sum over rows.
    """
    defaults = {key.removeprefix("train."): value for key, value in strategy.items()}
    rate = learning_rate(defaults.get("learning_rate", REFERENCE_RATE), parameters, still)
    defaults = {
        "batch_size": batch_size(rows), "epochs": epochs(rows), "weight_decay": WEIGHT_DECAY,
        "keep": "best", "early_stopping_patience": PATIENCE, "sampler": sampler(additive), **defaults, "learning_rate": rate
    }
    if train.max_steps is not None or train.epochs is not None:
        defaults.pop("max_steps", None)
    if train.max_steps is not None or "max_steps" in defaults:
        del defaults["epochs"]
    unset = {key: value for key, value in defaults.items() if getattr(train, key) is None}
    return dataclasses.replace(train, **unset)

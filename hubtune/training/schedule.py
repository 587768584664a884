"""When things happen in a run, from the settings and a step number alone. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hubtune.recipe import TrainConfig


def steps_in(settings: TrainConfig, rows: int) -> tuple[int, int]:
    """Optimizer steps of an epoch, and in all."""
    if settings.batch_size is None or (settings.max_steps is None and settings.epochs is None):
        raise ValueError("settings with something left open: see defaults.settle")
    an_epoch = -(-rows // settings.batch_size)
    return an_epoch, settings.max_steps or max(1, round((settings.epochs or 1) * an_epoch))


def rate(settings: TrainConfig, step: int, steps: int) -> float:
    """The learning rate's factor at a step: up in a line, then down as the schedule says."""
    warmup = settings.warmup * steps if settings.warmup < 1 else settings.warmup
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1.0, steps - warmup)
    if settings.schedule == "constant":
        return 1.0
    return 1.0 - done if settings.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))


def validates(settings: TrainConfig, step: int, an_epoch: int, steps: int) -> bool:
    """Whether the model is scored after so many steps: evenly in every epoch, and at the end."""
    times = settings.evals_per_epoch or 1
    place = (step - 1) % an_epoch + 1
    return step == steps or place in {round(k * an_epoch / times) for k in range(1, times + 1)}


def boundaries(shares: Sequence[float], steps: int) -> tuple[int, ...]:
    """The step before which each phase ends, from its share of all steps; every phase has one where there are enough."""
    total, done, ends = sum(shares), 0.0, []
    for number, share in enumerate(shares, start=1):
        done += share
        ends.append(max(number, min(steps - len(shares) + number, round(steps * done / total))))
    return (*(min(end, steps) for end in ends[:-1]), steps)

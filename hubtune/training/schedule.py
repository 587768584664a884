"""Learning rate, validations and phases, as functions of the settings and a step number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hubtune.contract import Strategy
from hubtune.contract.validation import checked
from hubtune.recipe import TrainConfig

if TYPE_CHECKING:
    from torch.nn import Module


def count_steps(settings: TrainConfig, rows: int) -> tuple[int, int]:
    """Return the number of optimizer steps per epoch, and in total."""
    if settings.batch_size is None or (settings.max_steps is None and settings.epochs is None):
        raise ValueError("settings with something left open: see defaults.resolve")
    an_epoch = -(-rows // settings.batch_size)
    return an_epoch, settings.max_steps or max(1, round((settings.epochs or 1) * an_epoch))


def rate(settings: TrainConfig, step: int, steps: int) -> float:
    """Return the factor of the learning rate at a step: linear warmup, then decay."""
    warmup = settings.warmup * steps if settings.warmup < 1 else settings.warmup
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1.0, steps - warmup)
    if settings.schedule == "constant":
        return 1.0
    return 1.0 - done if settings.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))


def is_validation_step(settings: TrainConfig, step: int, an_epoch: int, steps: int) -> bool:
    """Tell whether to validate after this step: evenly in every epoch, and at the end."""
    times = settings.evals_per_epoch or 1
    place = (step - 1) % an_epoch + 1
    return step == steps or place in {round(k * an_epoch / times) for k in range(1, times + 1)}


def phase_ends(shares: Sequence[float], steps: int) -> tuple[int, ...]:
    """Return the step before which each phase ends; every phase has a step if there are enough."""
    total, done, ends = sum(shares), 0.0, []
    for number, share in enumerate(shares, start=1):
        done += share
        ends.append(max(number, min(steps - len(shares) + number, round(steps * done / total))))
    return (*(min(end, steps) for end in ends[:-1]), steps)


class Phases:
    """The strategy's phases, with the steps and trainable parameters of each."""

    def __init__(self, strategy: Strategy[Any], module: Module, settings: TrainConfig,
                 steps: int) -> None:
        self.strategy, self.settings = strategy, settings
        self.each = checked(strategy, "phases", strategy.phases())
        self.ends = phase_ends([phase.share for phase in self.each], steps)
        self.trainable_by_phase = self.find_trainable(module)
        self.trainable: frozenset[str] = frozenset().union(*self.trainable_by_phase)

    def find_trainable(self, module: Module) -> list[frozenset[str]]:
        """Return the names of the trainable parameters of each phase."""
        found = []
        for phase in self.each:
            self.strategy.start_phase(module, phase)
            names = (name for name, value in module.named_parameters() if value.requires_grad)
            found.append(frozenset(names))
        return found

    def phase_at(self, step: int) -> int:
        """Return the index of the phase of a step."""
        return next(index for index, end in enumerate(self.ends) if step < end)

    def is_last(self, index: int) -> bool:
        """Tell whether no phase follows."""
        return index == len(self.each) - 1

    def rate(self, step: int) -> float:
        """Return the factor of the learning rate at a step, with warmup and decay per phase."""
        index = self.phase_at(step)
        start, end = (0, *self.ends)[index], self.ends[index]
        return self.each[index].rate * rate(self.settings, step - start, end - start)

    def largest_phase(self, module: Module) -> int:
        """Return the index of the phase that trains the most weights."""
        counts = [sum(value.numel() for name, value in module.named_parameters() if name in names)
                  for names in self.trainable_by_phase]
        return counts.index(max(counts))

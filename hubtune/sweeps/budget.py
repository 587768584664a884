"""The budget of a sweep: trials, and seconds of computing; what a trial will cost, from those before it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hubtune.errors import RecipeError
from hubtune.sweeps.trials import DONE, Trial

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "sec": 1, "min": 60}
MISSES = 8
"""Proposals in a row that do not fit the rest of the budget, after which the sweep ends."""


def seconds_of(text: str | float, price: float | None = None) -> float:
    """Read `90s`, `30m`, `1.5h` or `1d`, or money such as `2usd`; a number is seconds.

    price: of an hour, in the currency of the budget.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd]?|[a-z]{3})\s*", str(text).lower())
    if found is None or not float(found[1]):
        raise RecipeError(f"a budget is a time such as 90s, 30m or 2h, or money such as 2usd, not '{text}'.",
                          hint="For example: --budget 30m, or: --budget 2usd --price 1.5")
    amount, unit = float(found[1]), found[2] or "s"
    if unit in UNITS:
        if price is not None:
            raise RecipeError(f"a price per hour needs a budget of money, not of time ('{text}').",
                              hint=f"For example: --budget 2usd --price {price:g}")
        return amount * UNITS[unit]
    if price is None or not price > 0:
        raise RecipeError(f"a budget of '{text}' needs the price of an hour of this machine, above 0.",
                          hint=f"For example: --budget {text} --price 1.5, in {unit} per hour")
    return amount / price * UNITS["h"]


@dataclass
class Budget:
    """Limits of a sweep.

    Attributes:
        seconds: of all trials of all processes, and of the winner's training; None: no limit.
        trials: in all.
        measured: seconds of a pair of model and strategy by the plan, and the epochs of it.
    """

    seconds: float | None = None
    trials: int | None = None
    measured: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict)

    def is_used_up(self, trials: Sequence[Trial], winner: Trial | None) -> bool:
        """Tell whether no further trial may begin."""
        count = sum(trial.state in (*DONE, "running") for trial in trials)
        if self.trials is not None and count >= self.trials:
            return True
        return self.seconds is not None and self.left(trials, winner) <= 0

    def left(self, trials: Sequence[Trial], winner: Trial | None) -> float:
        """Return the seconds that are left for trials, when the winner's training is taken off."""
        spent = sum(trial.seconds for trial in trials)
        return (self.seconds or 0.0) - spent - (winner.seconds / max(1, len(winner.folds)) if winner else 0.0)

    def estimate(self, trial: Trial, trials: Sequence[Trial], measure: Callable[[], tuple[float, float]]) -> float:
        """Return the seconds that a trial will take.

        From the slowest epoch of earlier trials of its model and strategy; for the first of them, from the plan.

        measure: returns the seconds and the epochs of a plan.
        """
        pair = (trial.model, trial.strategy)
        known = [one.seconds / one.epochs for one in trials
                 if (one.model, one.strategy) == pair and one.epochs and one.state in ("complete", "pruned")]
        if not known:
            if pair not in self.measured:
                self.measured[pair] = measure()
            seconds, epochs = self.measured[pair]
            known = [seconds / epochs]
        return max(known) * trial.planned_epochs

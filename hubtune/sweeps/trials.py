"""Trials of a sweep: what is proposed, and what came out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import stdev
from typing import Any, Protocol

from hubtune.errors import place_of

DONE = ("complete", "pruned", "failed")
"""States that count as a trial. Others: running; refused, for a combination that cannot be; too-long, for one
that was not begun because of the budget; interrupted, which is tried again."""


class Pruned(Exception):
    """A trial is stopped, since others were better at the same point."""


@dataclass
class Trial:
    """One trial.

    Attributes:
        values: by the name of its range; settings within `RELATIVE` ranges are multiples of the default.
        settings: the settings by key, as `--set` takes them, once they are known.
        curve: the score at each validation; of folds, the mean of those so far after each.
        folds: the score of each fold, whose mean is `score`.
        handle: the study's own.
    """

    number: int
    model: str
    strategy: str
    values: dict[str, Any] = field(default_factory=dict)
    state: str = "running"
    settings: dict[str, Any] = field(default_factory=dict)
    score: float | None = None
    curve: list[float] = field(default_factory=list)
    folds: list[float] = field(default_factory=list)
    epochs: float = 0.0
    planned_epochs: float = 0.0
    seconds: float = 0.0
    finished: str | None = None
    reason: str | None = None
    handle: Any = None

    @property
    def spread(self) -> float | None:
        """The standard deviation of the scores of the folds."""
        return round(stdev(self.folds), 6) if len(self.folds) > 1 else None

    def as_dict(self) -> dict[str, Any]:
        """Return the trial as JSON."""
        return {**{name: value for name, value in vars(self).items() if name != "handle"}, "spread": self.spread}

    @classmethod
    def of_dict(cls, found: Mapping[str, Any]) -> Trial:
        """Return the trial that `as_dict` has written."""
        return cls(**{name: value for name, value in found.items() if name != "spread"})


def describe_error(error: Exception) -> str:
    """Return the class and words of an error, and the module and line that raised it, in one line."""
    text = " ".join(str(error).split())[:200] or "?"
    return f"{type(error).__name__}: {text} ({place_of(error)})"


class Study(Protocol):
    """Where trials come from, and where they are kept."""

    method: str

    def ask(self) -> Trial | None:
        """Return the next trial, or None if nothing is left to try."""

    def report(self, trial: Trial, score: float) -> None:
        """Keep the score of a validation. Raises Pruned to stop the trial."""

    def tell(self, trial: Trial) -> None:
        """Keep a trial that has ended."""

    def trials(self) -> list[Trial]:
        """Return all trials so far, of all processes."""


def best_of(trials: list[Trial], higher_is_better: bool) -> Trial | None:
    """Return the complete trial with the best score; the earliest of equal ones."""
    complete = [trial for trial in trials if trial.state == "complete" and trial.score is not None]
    sign = 1.0 if higher_is_better else -1.0
    return max(complete, key=lambda trial: (sign * (trial.score or 0.0), -trial.number), default=None)

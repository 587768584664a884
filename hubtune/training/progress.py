"""Progress of a run, as its checkpoints hold it, and its outcome."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hubtune.contract import Plan, Prediction

if TYPE_CHECKING:
    from torch.nn import Module


@dataclass
class Progress:
    """Position of a run, for its checkpoints.

    Attributes:
        waited: validations since the best one.
        seconds: total time.
        learning: seconds of the steps alone.
        tokens, padded: of the steps so far, without and with padding.
    """

    step: int = 0
    best: list[float] | None = None
    best_step: int = 0
    waited: int = 0
    stopped: bool = False
    seconds: float = 0.0
    learning: float = 0.0
    tokens: int = 0
    padded: int = 0

    def throughput(self, epoch_steps: int) -> dict[str, Any]:
        """Return the tokens so far, and tokens per second without padding."""
        seconds = max(1e-9, self.learning)
        return {
            "tokens": self.tokens, "padded_tokens": self.padded,
            "padding": round(1 - self.tokens / max(1, self.padded), 4),
            "tokens_per_second": round(self.tokens / seconds, 1),
            "seconds_an_epoch": round(seconds / max(1, self.step) * epoch_steps, 3),
        }


@dataclass(frozen=True)
class Outcome:
    """The trained module, prepared by the strategy, and how it was trained.

    predictions: of the validation rows by forward passes, if the module's weights are those that
    were validated last.
    """

    model: Module
    steps: int
    epochs: float
    best_step: int
    seconds: float
    num_trainable: int
    trainable: frozenset[str]
    plan: Plan
    stopped_early: bool
    acceleration: dict[str, dict[str, Any]]
    throughput: dict[str, Any]
    predictions: list[Prediction] | None = None

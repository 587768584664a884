"""Focal loss: targets that the model already gets right count less, rare labels more."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hubtune import LabelKind, LossFunction, RecipeError, hookimpl, option

if TYPE_CHECKING:
    from torch import Tensor

BALANCED, NONE = "balanced", "none"


@dataclass(frozen=True)
class FocalOptions:
    gamma: float = option(2.0, "how much less a target counts that is right already; 0: cross-entropy")
    class_weights: str | dict[str, float] = option(
        NONE, "the weight of each label: balanced (rows / (labels * rows with the label)), none, or a table of weights "
        "by label; labels left out of the table weigh 1")


class Focal(LossFunction[FocalOptions]):
    """Cross-entropy times (1 - p) ** gamma, where p is the probability of the right answer.

    Of several labels a row, each is a yes-or-no question, and a label's weight multiplies the loss of rows that have it.
    """

    contract = 2
    name = "focal"
    summary = "focal loss with class weights, for rare labels; gamma=0 is weighted cross-entropy"
    paper = "Lin et al., Focal Loss for Dense Object Detection, arXiv:1708.02002"
    kinds = ("single_label", "multi_label")
    Options = FocalOptions
    class_weights: tuple[float, ...] | None = None
    """By label id; None: all weigh 1."""

    def fit(self, kind: LabelKind, counts: Mapping[str, int]) -> dict[str, Any]:
        if not (math.isfinite(self.options.gamma) and self.options.gamma >= 0):
            raise RecipeError(f"loss.gamma is 0 or more, not {self.options.gamma}.", hint="Usual is 2.0.")
        return {"class_weights": self.weights_of(counts)}

    def weights_of(self, counts: Mapping[str, int]) -> dict[str, float] | None:
        """Return the weight of each label; None where all weigh 1."""
        chosen = self.options.class_weights
        if chosen == NONE:
            return None
        if chosen == BALANCED:
            refuse_unseen(counts)
            rows = sum(counts.values())
            return {label: rows / (len(counts) * count) for label, count in counts.items()}
        if isinstance(chosen, str):
            raise RecipeError(f"loss.class_weights is balanced, none or a table, not {chosen!r}.", hint=example(counts))
        strange = [label for label in chosen if label not in counts]
        if strange:
            raise RecipeError(f"loss.class_weights names the label {strange[0]!r}; the labels are {', '.join(counts)}.",
                              hint=example(counts))
        wrong = [label for label, weight in chosen.items() if not (math.isfinite(weight) and weight > 0)]
        if wrong:
            raise RecipeError(f"loss.class_weights: the weight of {wrong[0]!r} is above 0, not {chosen[wrong[0]]}.",
                              hint=example(counts))
        return {label: chosen.get(label, 1.0) for label in counts}

    def restore(self, fitted: Mapping[str, Any]) -> None:
        weights = fitted["class_weights"]
        self.class_weights = None if weights is None else tuple(weights.values())

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        import torch
        from torch.nn import functional as F

        if not targets.is_floating_point():
            return self.focused(F.cross_entropy(logits, targets, reduction="none"))
        targets = targets.to(logits.dtype)
        each = self.focused(F.binary_cross_entropy_with_logits(logits, targets, reduction="none"))
        if self.class_weights is not None:
            each = each * torch.where(targets > 0, logits.new_tensor(self.class_weights), 1.0)
        return each.mean(1)

    def focused(self, losses: Tensor) -> Tensor:
        """Multiply losses by (1 - p) ** gamma, of p = exp(-loss)."""
        import torch

        # From below, as the gradient of a root is infinite at 0: a target that is right to the last digit has loss 0.
        wrong = (-torch.expm1(-losses)).clamp_min(torch.finfo(losses.dtype).tiny)
        return wrong**self.options.gamma * losses

    def weights(self, targets: Tensor) -> Tensor | None:
        import torch

        if self.class_weights is None or targets.is_floating_point():
            return None
        return torch.tensor(self.class_weights, device=targets.device)[targets]


def refuse_unseen(counts: Mapping[str, int]) -> None:
    """Refuse to balance labels that no training row has."""
    unseen = [label for label, count in counts.items() if not count]
    if unseen or not counts:
        raise RecipeError(f"loss.class_weights=balanced: no training row has the label {', '.join(unseen) or '(none known)'}.",
                          hint=example(counts))


def example(labels: Iterable[str]) -> str:
    """Return a hint with a table of weights for the first label."""
    first = next(iter(labels), "LABEL")
    return f"For example: --set 'loss.class_weights={{\"{first}\" = 2.0}}'"


@hookimpl
def hubtune_losses() -> list[type[LossFunction[Any]]]:
    return [Focal]

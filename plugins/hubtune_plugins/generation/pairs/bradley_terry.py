"""Pairs of answers of which one is better, by the difference of their rewards (Bradley and Terry, 1952)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


def pair_losses(margins: Tensor, wrong: float = 0.0) -> Tensor:
    """The loss of each pair, (pairs,), of the better answer's reward over the other's, where a share may be the `wrong` way round."""
    from torch.nn.functional import logsigmoid

    return -(1 - wrong) * logsigmoid(margins) - wrong * logsigmoid(-margins)


def wins(margins: NDArray[Any]) -> float:
    """The share of differences above 0, of those that are 0 half; margins: an array."""
    return float(((margins > 0) + 0.5 * (margins == 0)).mean())

"""Configuration keys of sentence-transformers' CrossEncoder: the function between its output and a score."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

SIGMOID, IDENTITY = "torch.nn.modules.activation.Sigmoid", "torch.nn.modules.linear.Identity"
KEY = "sentence_transformers"


def activation_for(loss: str | None, config: Any) -> str:
    """The function for a loss; for a model that was tuned elsewhere (no loss) its own, as CrossEncoder finds it."""
    if loss is None:
        return str((getattr(config, KEY, None) or {}).get("activation_fn", SIGMOID))
    return SIGMOID if loss == "binary" else IDENTITY


def config_for(activation: str, config: Any) -> dict[str, Any]:
    """Configuration with which CrossEncoder and transformers' pipeline give the same scores as we do."""
    return {KEY: {**(getattr(config, KEY, None) or {}), "activation_fn": activation},
            "problem_type": None if activation == SIGMOID else "regression"}  # a pipeline applies the sigmoid unless told so


def activated(logits: Tensor, activation: str) -> Tensor:
    """Scores from logits of any shape."""
    return logits.sigmoid() if activation == SIGMOID else logits

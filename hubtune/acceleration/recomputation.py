"""Recomputation of activations in the backward pass: most of their memory is saved, for about a third more time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hubtune.acceleration import kernels

if TYPE_CHECKING:
    from torch.nn import Module


def enable(model: Module) -> bool:
    """Have a model recompute its activations, with the dropout of the forward pass; returns False where it cannot."""
    for part in model.modules():
        if getattr(part, "supports_gradient_checkpointing", False):
            # transformers 5.23 renamed it, and warns of the old name.
            method: Any = getattr(part, "activation_checkpointing_enable", None) or part.gradient_checkpointing_enable
            method({"use_reentrant": False, "context_fn": kernels.recomputation})
            return True
    return False


def is_enabled(model: Module) -> bool:
    """Whether a part of the model recomputes, such as a strategy may have asked for."""
    return any(getattr(part, "gradient_checkpointing", False) for part in model.modules())

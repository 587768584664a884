"""Gradient checkpointing: recompute activations in the backward pass, for a third more time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hubtune.acceleration import kernels

if TYPE_CHECKING:
    from torch.nn import Module


def enable(model: Module) -> bool:
    """Enable recomputation with the same dropout; return False if the model cannot."""
    for part in model.modules():
        if getattr(part, "supports_gradient_checkpointing", False):
            # transformers 5.23 renamed it, and warns of the old name.
            renamed = getattr(part, "activation_checkpointing_enable", None)
            method: Any = renamed or part.gradient_checkpointing_enable
            method({"use_reentrant": False, "context_fn": kernels.recomputation_contexts})
            return True
    return False


def is_enabled(model: Module) -> bool:
    """Tell whether a part of the model recomputes, for example because a strategy enabled it."""
    return any(getattr(part, "gradient_checkpointing", False) for part in model.modules())

"""Freeze and unfreeze parameters of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.nn import Module


def learn(model: Module, names: Any) -> None:
    """Let the parameters of these names learn, and no others."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name in names and parameter.is_floating_point()


def owned(model: Module, name: str) -> list[Any]:
    """The full names of the parameters in a submodule."""
    return [f"{name}.{inner}" for inner, _ in model.get_submodule(name).named_parameters()]

"""Learning rates that differ within a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.nn import Module


def rated(groups: Any, model: Module, rate_of: Any) -> list[Any]:
    """Parameter groups split by learning rate; rate_of: what multiplies the run's, by the full name of a parameter."""
    rates = {id(parameter): rate_of(name) for name, parameter in model.named_parameters()}
    split: dict[Any, Any] = {}
    for index, group in enumerate(groups):
        for parameter in group["params"]:
            split.setdefault((index, rates[id(parameter)]), []).append(parameter)
    return [{**groups[index], "params": part, "rate": rate} for (index, rate), part in sorted(split.items(), key=first)]


def first(item: Any) -> Any:
    """Return what a pair begins with, to sort by."""
    return item[0]

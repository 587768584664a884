"""Tries PEFT on one layer of each kind, to learn which layers of a model a method takes and whether
it can merge them."""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

FAULTS = (
    ValueError,
    TypeError,
    NotImplementedError,
    RuntimeError,
    AttributeError,
    KeyError,
    IndexError,
    AssertionError,
    ImportError,
    ZeroDivisionError,
)
"""Errors that PEFT raises where a layer, a model or an option does not suit a method."""


@dataclass
class Trial:
    """Result of trying a method on the layers of a model.

    taken: the layers that PEFT adapts, by full name. refused: PEFT's reason by layer. unmerged: why
    it cannot merge what it adapts, or None.
    """

    taken: dict[str, Module] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    unmerged: str | None = None


QUANTIZED = ("is_loaded_in_4bit", "is_loaded_in_8bit")
"""Attributes of a model by which PEFT chooses its layers."""


def skeleton(whole: Any, name: str, layer: Module) -> Module:
    """Make a model of one layer, with the name and the configuration that it has in the whole
    one."""
    from torch.nn import Module

    class Skeleton(Module):
        def forward(self, *inputs: Any) -> Any:
            return self.get_submodule(name)(*inputs)

    model = Skeleton()
    model.config = whole.config
    for attribute in QUANTIZED:
        setattr(model, attribute, getattr(whole, attribute, False))
    owner: Module = model
    *path, last = name.split(".")
    for part in path:
        owner.add_module(part, Module())
        owner = owner.get_submodule(part)
    owner.add_module(last, layer)
    return model


def try_layers(
    model: Module, layers: Mapping[str, Module], adapter: Callable[[dict[str, Module]], Any]
) -> Trial:
    """Try a method on one layer of each kind.

    Args:
        model: The whole model, whose configuration PEFT looks at as well.
        layers: The layers to adapt, by full name.
        adapter: Makes PEFT's configuration for some of the layers.
    """
    trial, known = Trial(), dict[Any, tuple[str | None, str | None]]()
    for name, layer in layers.items():
        kind = (type(layer), name.rpartition(".")[2], *shapes(layer))
        if kind not in known:
            known[kind] = try_layer(model, name, layer, adapter)
        refused, unmerged = known[kind]
        if refused is None:
            trial.taken[name] = layer
            trial.unmerged = trial.unmerged or unmerged
        else:
            trial.refused[name] = refused
    return trial


def shapes(layer: Module) -> Iterable[tuple[str, tuple[int, ...]]]:
    """Return names and shapes of a layer's parameters."""
    return ((name, tuple(parameter.shape)) for name, parameter in layer.named_parameters())


def try_layer(
    model: Module, name: str, layer: Module, adapter: Callable[[dict[str, Module]], Any]
) -> tuple[str | None, str | None]:
    """Return PEFT's reasons not to adapt a layer, and not to merge its adapter; None where it
    does."""
    import torch
    from peft import get_peft_model

    with torch.random.fork_rng(devices=[]), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            own = copy.deepcopy(layer)
            wrapped = get_peft_model(skeleton(model, name, own), adapter({name: own})).eval()
            wrapped(sample_input(layer))
        except FAULTS as error:
            return first_line(error), None
        return None, merge_refusal(wrapped)


def merge_refusal(wrapped: Any) -> str | None:
    """Return PEFT's reason not to merge an adapter into the weights below it; None where it
    does."""
    if not hasattr(wrapped.base_model, "merge_and_unload"):
        return "PEFT has no merge for it"
    try:
        wrapped.merge_and_unload()
    except FAULTS as error:
        return first_line(error)
    return None


def without_weights(model: Module) -> Any:
    """Copy a model without the values of its parameters and buffers, so that the copy takes no
    memory."""
    from torch.nn import Parameter

    memo: dict[int, Any] = {}
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        empty = tensor.detach().to("meta")
        memo[id(tensor)] = (
            Parameter(empty, tensor.requires_grad) if isinstance(tensor, Parameter) else empty
        )
    return copy.deepcopy(model, memo)


def sample_input(layer: Module) -> Tensor:
    """Make an input that fits a layer: token ids, an image or vectors."""
    import torch

    weight = next(layer.parameters())
    if isinstance(layer, torch.nn.Embedding):
        return torch.zeros(1, 2, dtype=torch.long, device=weight.device)
    if isinstance(layer, torch.nn.Conv2d):
        shape = (1, layer.in_channels, *(2 * side for side in layer.kernel_size))
    else:
        shape = (
            1,
            2,
            getattr(layer, "in_features", None) or getattr(layer, "nx", None) or weight.shape[-1],
        )
    # Weights of quantized layers hold codes: such a layer takes vectors of the default type.
    return torch.zeros(
        shape, device=weight.device, dtype=weight.dtype if weight.is_floating_point() else None
    )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def silence_deprecations() -> None:
    """Silence the warning about an attribute that PEFT reads by its old name, which no user could
    mend."""
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")

"""A transformers model with bottleneck adapters (Houlsby et al., arXiv:1902.00751; Pfeiffer et al.,
arXiv:2005.00247).

This file lies beside the weights of models that hubtune tuned, and needs nothing but torch and
transformers. `config.json` says under `hubtune_adapters` of which class the model is and which of
its modules have an adapter.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    import torch
    from torch.nn import Module


def insert(model: Module, said: Mapping[str, Any]) -> dict[str, Module]:
    """Put an adapter behind each of the modules that `said["layers"]` names: h becomes h +
    up(act(down(h))).

    said: {"model": class, "layers": {module: [width, bottleneck]}, "nonlinearity": name, "dropout":
    probability}. The up projection begins at zero, so that the model begins as it was. Returns the
    adapters.
    """
    WithAdapter = layer_with_adapter()
    layers = {name: model.get_submodule(name) for name in said["layers"]}
    made = {name: bottleneck(layers[name], width, inner, said["nonlinearity"], said["dropout"])
            for name, (width, inner) in said["layers"].items()}
    wrapped = {
        id(layers[name]): WithAdapter(layers[name], adapter) for name, adapter in made.items()
    }
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if id(child) in wrapped and not isinstance(parent, WithAdapter):
                setattr(parent, name, wrapped[id(child)])
    return made


def bottleneck(
    layer: Module, width: int, inner: int, nonlinearity: str, dropout: float
) -> Module:
    """Make an adapter for a layer's outputs: from `width` values (of a convolution: channels) to
    `inner` and back."""
    from torch import nn

    weight = next(layer.parameters())
    make: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
    down: Module
    up: Module
    if isinstance(layer, nn.Conv2d):
        down, up = nn.Conv2d(width, inner, 1, **make), nn.Conv2d(inner, width, 1, **make)
    else:
        down, up = nn.Linear(width, inner, **make), nn.Linear(inner, width, **make)
    for parameter in up.parameters():
        nn.init.zeros_(parameter)
    activation = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}[nonlinearity]()
    adapter = nn.Sequential()
    for name, part in {
        "down": down,
        "activation": activation,
        "dropout": nn.Dropout(dropout),
        "up": up,
    }.items():
        adapter.add_module(name, part)
    return adapter


def layer_with_adapter() -> type[Module]:
    """Make the class of a layer with an adapter behind it, late, so that importing this file is
    cheap."""
    from torch import nn

    class WithAdapter(nn.Module):
        def __init__(self, layer: Module, adapter: Module) -> None:
            super().__init__()
            self.layer, self.adapter = layer, adapter

        def forward(self, *inputs: Any, **named: Any) -> Any:
            out = self.layer(*inputs, **named)
            if isinstance(out, tuple):  # such as a mixture of experts with what its router chose
                return (out[0] + self.adapter(out[0]), *out[1:])
            return out + self.adapter(out)

        def __getattr__(
            self, name: str
        ) -> Any:  # what a model asks of its layer, such as the number format of its weight
            try:
                return super().__getattr__(name)
            except AttributeError:
                # PEFT's wrapper of the layer is left out: PEFT would take this module for it.
                layer = super().__getattr__("layer")
                return getattr(getattr(layer, "base_layer", layer), name)

    return WithAdapter


class Adapted:
    """Stand-in that `auto_map` names for the model's class in transformers, with adapters before
    weights are read."""

    @classmethod
    def of(cls, config: Any) -> Any:
        """Return the class for a configuration."""
        import transformers

        said = config.hubtune_adapters
        # A model with a head of hubtune's stands beside its configuration, and not in transformers.
        known = getattr(transformers, said["model"], None) or getattr(
            sys.modules[type(config).__module__], said["model"])

        def begin(self: Any, config: Any, *inputs: Any, **named: Any) -> None:
            known.__init__(self, config, *inputs, **named)
            insert(self, said)

        return type(known.__name__, (known,), {"__init__": begin, "__module__": known.__module__})

    @classmethod
    def register_for_auto_class(cls, auto_class: str | type | None = None) -> None:
        """Do nothing: the `Auto` classes call this."""

    @classmethod
    def from_pretrained(
        cls, name: str | PathLike[str], *inputs: Any, config: Any, **named: Any
    ) -> Any:
        """Load a model, as `AutoModel....from_pretrained(..., trust_remote_code=True)` asks for
        it."""
        return cls.of(config).from_pretrained(name, *inputs, config=config, **named)

    @classmethod
    def _from_config(cls, config: Any, dtype: torch.dtype | None = None, **named: Any) -> Any:
        """Make a model with new weights, as `AutoModel....from_config` of transformers asks for it
        by this name."""
        model = cls.of(config)(config, **named)
        return model if dtype is None else model.to(dtype)

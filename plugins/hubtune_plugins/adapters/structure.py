"""Modules of a model that write to its residual stream, by the structure, not from
names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from hubtune import ModelError
from hubtune_plugins.layers.stacks import body, is_norm

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

POSITIONS = {"pos", "position", "rel", "relative"}
"""Words in the names of layers that project positions for attention, and write nothing."""


def places(
    model: Module, newly_initialized: frozenset[str], every: bool
) -> list[tuple[str, int]]:
    """Find what gets an adapter, by full name with its width, in every block outside the head.

    every: after each part of a block, else after its last one, the feed-forward.
    """
    known = {name: model.get_submodule(name) for name in body(model, newly_initialized)}
    found = {name: writers(block) for name, block in known.items()}
    if not any(found.values()):
        found = {name: last_convolution(block) for name, block in known.items()}
    if not any(found.values()):
        raise ModelError("none of its blocks has a layer that an adapter could follow.",
                         hint="Tune it whole: --strategy full")
    return [
        (f"{name}.{inner}", width)
        for name, layers in found.items()
        for inner, width in layers[0 if every else -1 :]
    ]


def writers(block: Module) -> list[tuple[str, int]]:
    """Find the modules in a block whose output is added to its residual stream, in order: (name,
    width).

    They are the last layer of each part of the block (attention, feed-forward, convolution ...)
    that is as wide as the block; of a mixture of experts, the mixture.
    """
    from torch.nn import ModuleList

    order = {module: place for place, module in enumerate(block.modules())}
    width = stream(block)
    parts: list[tuple[str, Module]] = []
    own: list[tuple[str, Module]] = []
    for name, child in block.named_children():
        inner = (
            [(f"{name}.{n}", c) for n, c in child.named_children()]
            if isinstance(child, ModuleList)
            else []
        )
        for path, module in inner or [(name, child)]:
            (own if breadth(module) else parts).append((path, module))
    found: dict[Module, str] = {}
    for name, part in parts:
        inside = [(f"{name}.{n}" if n else name, m) for n, m in part.named_modules()]
        mixtures = [
            n.rpartition(".")[0] or n
            for n, m in inside
            if "experts" in f"{n} {type(m).__name__}".lower()
        ]
        found |= (
            {block.get_submodule(mixtures[0]): mixtures[0]}
            if mixtures
            else last_wide(inside, width)
        )
    found |= last_wide(own, width)  # BART's feed-forward layers stand in the block itself
    return [(found[module], width) for module in sorted(found, key=order.__getitem__)]


def last_wide(named: Iterable[tuple[str, Module]], width: int) -> dict[Module, str]:
    """Return the last layer of a width by module, without those that project positions; or an empty
    dict."""
    wide = [
        (m, n)
        for n, m in named
        if breadth(m) == width and not POSITIONS & set(n.rpartition(".")[2].split("_"))
    ]
    return dict(wide[-1:])


def breadth(module: Module) -> int | None:
    """Return the number of outputs of a linear layer (`nf` of transformers' Conv1D); None for other
    modules."""
    weight = getattr(module, "weight", None)
    if getattr(weight, "ndim", 0) != 2:
        return None
    outputs: int | None = getattr(module, "out_features", getattr(module, "nf", None))
    return outputs


def stream(block: Module) -> int:
    """Return the width of a block's residual stream: of most of its norms, or of its last linear
    layer."""
    widths = [len(cast("Tensor", part.weight)) for part in block.modules() if is_norm(part)
              and getattr(getattr(part, "weight", None), "ndim", 0) == 1]
    wide = [value for part in block.modules() if (value := breadth(part))]
    widths = [width for width in widths if width in wide]
    return (
        max(widths, key=lambda width: (widths.count(width), width)) if widths else (wide or [0])[-1]
    )


def last_convolution(block: Module) -> list[tuple[str, int]]:
    """Return the last convolution of a block that mixes channels, with their number."""
    from torch.nn import Conv2d

    found = [(name, part.out_channels) for name, part in block.named_modules()
             if isinstance(part, Conv2d) and part.groups == 1]
    return found[-1:]

"""Blocks as `torch.compile` makes them, while a step is computed; whoever else runs the model meets them as they are."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from hubtune.devices import sharding
from hubtune.evaluation import equivalence

FASTER = 1.05
"""How many times as fast a step has to become."""
CLOSE = 0.05
"""How far loss and gradient may be from those of plain blocks, relative to them: in half precision fewer numbers are rounded."""
LONG = 600.0
"""Seconds that a training must take, so that compiling is worth a try: it takes minutes itself."""


class Compiled:
    """The blocks of a model. Compiled one by one, and for any shape: blocks of one kind share what is made of the first."""

    def __init__(self, model: Module) -> None:
        self.on = False
        self.stack = sharding.blocks(model)
        self.before = [vars(block).get("forward") for block in self.stack]
        for block in self.stack:
            block.forward = self.switched(block.forward)

    def switched(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        """A forward pass that is compiled while `computing`."""
        compiled = torch.compile(plain, dynamic=True)

        @functools.wraps(plain)
        def forward(*given: Any, **named: Any) -> Any:
            return (compiled if self.on else plain)(*given, **named)

        return forward

    @contextmanager
    def computing(self) -> Iterator[None]:
        """For one step, its backward pass too."""
        self.on = True
        try:
            yield
        finally:
            self.on = False

    def release(self) -> None:
        """The model as it was."""
        for block, before in zip(self.stack, self.before, strict=True):
            vars(block).pop("forward", None)
            if before is not None:
                block.forward = before


def against(plain: list[Tensor], found: list[Tensor], ratio: float | None) -> str | None:
    """What speaks against compiled blocks: what they give, or how many times as fast they are; None where nothing does."""
    apart = equivalence.off(found, plain) if plain else 0.0
    if not apart <= CLOSE:
        return f"its loss and gradient would be off by {apart:.2g} of them"
    return f"a step would be {ratio:.2f} times as fast" if ratio is not None and ratio < FASTER else None

"""Logits of a large vocabulary, computed when someone looks at them: a cross entropy looks at some places at a time.

A product with a large table gives `Logits`, which know their shape and what they are made of. To choose places is to choose hidden
states, and a cross entropy takes these (`hubtune.losses`); all else gets the numbers. So nothing is known of architectures: a
model that caps its logits has them computed, as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter, functional
from torch.utils._pytree import tree_map_only

from hubtune.acceleration import chunked_loss
from hubtune.acceleration.chunked_loss import Head

SMALLEST = 8192
"""Rows of a table below which its product is computed at once."""


class Logits(Tensor):
    """What `head` makes of `hidden`. numbers: the same as an ordinary tensor, once somebody needed it; part_of: what this is a view of,
    and its place there: what is changed in the one is changed in the other."""

    hidden: Tensor
    version: int
    head: Head
    numbers: Tensor | None
    part_of: tuple[Logits, Any] | None

    @staticmethod
    def __new__(cls, hidden: Tensor, head: Head) -> Logits:
        shape = (*hidden.shape[:-1], len(head.weight))
        made: Logits = Tensor._make_wrapper_subclass(cls, shape, dtype=head.dtype, device=hidden.device)
        made.hidden, made.version, made.head, made.numbers, made.part_of = hidden, hidden._version, head, None, None
        return made

    def computed(self) -> Tensor:
        """An ordinary tensor, the same at every call, so that what is changed in place stays changed."""
        if self.numbers is None:
            self.refuse_change()
            self.numbers = self.part_of[0].computed()[self.part_of[1]] if self.part_of else self.head(self.hidden)
        return self.numbers

    def refuse_change(self) -> None:
        """Refuse to be computed from hidden states that are no longer those that were given."""
        if self.hidden._version != self.version:
            raise RuntimeError("the input of a product with a large table was changed in place before its output was looked at; "
                               "train with --set train.kernels=plain")

    def is_put_off(self) -> bool:
        """Whether nobody has seen these numbers, and so changed them."""
        return self.numbers is None and (self.part_of is None or self.part_of[0].is_put_off())

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in KNOWN:
            return super().__torch_function__(func, types, args, kwargs)  # type: ignore[no-untyped-call]
        answer = ANSWERS.get(func)
        if answer and isinstance(args[0], Logits) and args[0].is_put_off():
            found = answer(*args, **(kwargs or {}))
            if found is not NotImplemented:
                return found
        return on_numbers(func, args, kwargs)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return on_numbers(func, args, kwargs)


class Later(torch.autograd.Function):
    """`Logits` as a step of autograd's own: where torch takes them past `__torch_function__`, as custom functions do, there is
    a gradient all the same."""

    @staticmethod
    def forward(ctx: Any, head: Head, hidden: Tensor, *parts: Tensor | None) -> Logits:
        ctx.head, ctx.given = head, (hidden, *parts)
        return Logits(hidden, head)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[1:]
        given = [part.detach().requires_grad_() if need else part for part, need in zip(ctx.given, needed, strict=True)]
        with torch.enable_grad():
            real = ctx.head.of(*given[1:])(given[0])
        found = iter(torch.autograd.grad(real, [part for part, need in zip(given, needed, strict=True) if need], gradient))
        return None, *(next(found) if need else None for need in needed)


@contextmanager
def applied(model: Module) -> Iterator[None]:
    """Have the model's linear layers with a large table give `Logits`, until the block ends."""
    heads = [part for part in model.modules() if isinstance(part, torch.nn.Linear) and type(part).forward is torch.nn.Linear.forward
             and "forward" not in vars(part) and len(part.weight) >= SMALLEST]
    for head in heads:
        head.forward = partial(put_off, head)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for head in heads:
            del head.forward


def put_off(layer: torch.nn.Linear, input: Tensor) -> Tensor:
    """The forward pass of a linear layer, computed later where there will be a gradient."""
    weight, bias = layer.weight, layer.bias
    learns = torch.is_grad_enabled() and (input.requires_grad or weight.requires_grad)
    if not learns or torch.compiler.is_compiling() or len(weight) < SMALLEST or not {type(input), type(weight)} <= {Tensor, Parameter}:
        return functional.linear(input, weight, bias)
    kind = input.device.type
    half = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) and input.dtype != torch.float64 else None
    if half is None and input.dtype != weight.dtype:
        return functional.linear(input, weight, bias)
    return made(Head(weight, bias, None, half, half or input.dtype), input)


def made(head: Head, hidden: Tensor) -> Logits:
    """Logits of these hidden states."""
    found: Logits = Later.apply(head, hidden, *head.parts())  # type: ignore[no-untyped-call]
    return found


def on_numbers(func: Any, args: Any, kwargs: Any) -> Any:
    """What a function gives for the real logits."""
    args, kwargs = tree_map_only(Logits, Logits.computed, (args, kwargs or {}))
    return func(*args, **kwargs)


def chosen(logits: Logits, index: Any) -> Any:
    """Some places, with all of the vocabulary."""
    parts = index if isinstance(index, tuple) else (index,)
    known = all(isinstance(part, slice | int) or type(part) is Tensor for part in parts)
    taken = sum(part.ndim if isinstance(part, Tensor) and part.dtype == torch.bool else 1 for part in parts)
    if not known or taken >= logits.ndim:
        return NotImplemented
    found = made(logits.head, logits.hidden[index])
    if not any(isinstance(part, Tensor) for part in parts):
        found.part_of = logits, index
    return found


def widened(logits: Logits, dtype: Any = torch.float32, *more: Any, **named: Any) -> Any:
    """Logits in a format that holds all that they are."""
    if more or named or not isinstance(dtype, torch.dtype) or torch.promote_types(logits.dtype, dtype) != dtype:
        return NotImplemented
    return logits if dtype == logits.dtype else made(replace(logits.head, dtype=dtype), logits.hidden)


def shifted(logits: Logits, added: Any, **named: Any) -> Any:
    """Logits and something per word, such as a bias that is no part of the table's layer."""
    head = logits.head
    if named or type(added) not in (Tensor, Parameter) or added.numel() != len(head.weight) or added.shape[-1:] != logits.shape[-1:]:
        return NotImplemented
    if head.added is not None or added.ndim > logits.ndim or head.dtype != (head.half or logits.hidden.dtype):
        return NotImplemented
    return made(replace(head, added=added.flatten(), dtype=torch.promote_types(head.dtype, added.dtype)), logits.hidden)


def same(logits: Logits, *named: Any) -> Any:
    """Logits in one piece of memory, as they will be unless they are a view."""
    return NotImplemented if named or logits.part_of else logits


def cross_entropy(
    logits: Logits, target: Any, weight: Any = None, size_average: Any = None, ignore_index: int = -100, reduce: Any = None,
    reduction: str = "mean", label_smoothing: float = 0.0,
) -> Any:
    """`torch.nn.functional.cross_entropy` of logits (places, vocabulary), some places at a time."""
    asked = (weight, size_average, reduce, label_smoothing) == (None, None, None, 0.0) and reduction in ("sum", "none")
    exact = logits.dtype in (torch.float32, torch.float64)
    if not (asked and exact) or logits.ndim != 2 or target.dtype != torch.int64 or target.shape != logits.shape[:1]:
        return NotImplemented
    logits.refuse_change()
    return chunked_loss.cross_entropy(logits.head, logits.hidden, target, ignore_index, reduction)


KNOWN = {getattr(Tensor, name).__get__ for name in ("shape", "dtype", "device", "ndim", "requires_grad")} | {
    Tensor.size, Tensor.dim, Tensor.numel, Tensor.is_floating_point,
}
"""What can be said of logits without computing them."""
ANSWERS: dict[Any, Callable[..., Any]] = {
    functional.cross_entropy: cross_entropy, Tensor.__getitem__: chosen, Tensor.float: widened, Tensor.to: widened, Tensor.add: shifted,
    Tensor.contiguous: same,
}
"""What can be done with logits without computing them all at once; NotImplemented where not so."""

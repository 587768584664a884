"""Lazy logits of a large vocabulary: computed on access, and by a cross entropy chunk by chunk.

A product with a large table returns `Logits`, which know their shape and inputs. Selecting
positions selects hidden states, and cross entropy uses these (`chunked_loss`); any other access
computes the values. This needs no knowledge of architectures: a model that caps its logits gets
them computed as usual.
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

from hubtune.acceleration import chunked_loss
from hubtune.acceleration.chunked_loss import Head
from hubtune.models import compat

SMALLEST = 8192
"""Number of rows of a table below which its product is computed at once."""


class Logits(Tensor):
    """The logits `head(hidden)`.

    Attributes:
        numbers: the same as an ordinary tensor, once it was needed.
        part_of: the logits that this is a view of, and the index in them; in-place changes apply to
            both.
    """

    hidden: Tensor
    version: int
    head: Head
    numbers: Tensor | None
    part_of: tuple[Logits, Any] | None

    @staticmethod
    def __new__(cls, hidden: Tensor, head: Head) -> Logits:
        shape = (*hidden.shape[:-1], len(head.weight))
        made: Logits = compat.make_wrapper(cls, shape, head.dtype, hidden.device)
        made.hidden, made.version, made.head = hidden, compat.tensor_version(hidden), head
        made.numbers, made.part_of = None, None
        return made

    def materialize(self) -> Tensor:
        """Return an ordinary tensor, the same at every call, so that in-place changes persist."""
        if self.numbers is None:
            self.check_inputs_unchanged()
            if self.part_of:
                logits, index = self.part_of
                self.numbers = logits.materialize()[index]
            else:
                self.numbers = self.head(self.hidden)
        return self.numbers

    def check_inputs_unchanged(self) -> None:
        """Refuse to compute from hidden states that were changed in place."""
        if compat.tensor_version(self.hidden) != self.version:
            raise RuntimeError(
                "the input of the output embeddings was changed in place before the logits "
                "were read; train with --set train.kernels=plain")

    def is_deferred(self) -> bool:
        """Tell whether nothing has accessed the values, which could have changed them."""
        return self.numbers is None and (self.part_of is None or self.part_of[0].is_deferred())

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in KNOWN:
            return super().__torch_function__(func, types, args, kwargs)  # type: ignore[no-untyped-call]
        answer = ANSWERS.get(func)
        if answer and isinstance(args[0], Logits) and args[0].is_deferred():
            found = answer(*args, **(kwargs or {}))
            if found is not NotImplemented:
                return found
        return call_on_values(func, args, kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return call_on_values(func, args, kwargs)


class DeferredLogits(torch.autograd.Function):
    """Autograd of `Logits` in code that bypasses `__torch_function__`, as custom functions do."""

    @staticmethod
    def forward(ctx: Any, head: Head, hidden: Tensor, *parts: Tensor | None) -> Logits:
        ctx.head, ctx.given = head, (hidden, *parts)
        return Logits(hidden, head)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[1:]
        given = [part.detach().requires_grad_() if need else part
                 for part, need in zip(ctx.given, needed, strict=True)]
        with torch.enable_grad():
            real = ctx.head.with_parts(*given[1:])(given[0])
        wanted = [part for part, need in zip(given, needed, strict=True) if need]
        found = iter(torch.autograd.grad(real, wanted, gradient))
        return None, *(next(found) if need else None for need in needed)


@contextmanager
def defer_large_layers(model: Module) -> Iterator[None]:
    """Make the model's linear layers with a large table return `Logits`, until the block ends."""
    heads = [part for part in model.modules()
             if isinstance(part, torch.nn.Linear) and type(part).forward is torch.nn.Linear.forward
             and "forward" not in vars(part) and len(part.weight) >= SMALLEST]
    for head in heads:
        head.forward = partial(defer_linear, head)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for head in heads:
            del head.forward


def defer_linear(layer: torch.nn.Linear, input: Tensor) -> Tensor:
    """Return `Logits` for a linear layer if a gradient will be needed, else its output."""
    weight, bias = layer.weight, layer.bias
    learns = torch.is_grad_enabled() and (input.requires_grad or weight.requires_grad)
    plain = {type(input), type(weight)} <= {Tensor, Parameter}
    if not learns or torch.compiler.is_compiling() or len(weight) < SMALLEST or not plain:
        return functional.linear(input, weight, bias)
    kind = input.device.type
    half = None
    if torch.is_autocast_enabled(kind) and input.dtype != torch.float64:
        half = torch.get_autocast_dtype(kind)
    if half is None and input.dtype != weight.dtype:
        return functional.linear(input, weight, bias)
    return make_logits(Head(weight, bias, None, half, half or input.dtype), input)


def make_logits(head: Head, hidden: Tensor) -> Logits:
    """Create the logits of hidden states."""
    found: Logits = DeferredLogits.apply(head, hidden, *head.parts())  # type: ignore[no-untyped-call]
    return found


def call_on_values(func: Any, args: Any, kwargs: Any) -> Any:
    """Call a function on the computed logits."""
    args, kwargs = materialize_all((args, kwargs or {}))
    return func(*args, **kwargs)


def materialize_all(value: Any) -> Any:
    """Replace the logits within lists, tuples and dicts by their values."""
    if isinstance(value, Logits):
        return value.materialize()
    if type(value) in (list, tuple):
        return type(value)(map(materialize_all, value))
    if type(value) is dict:
        return {key: materialize_all(item) for key, item in value.items()}
    return value


def select_positions(logits: Logits, index: Any) -> Any:
    """Select positions, each with the whole vocabulary."""
    parts = index if isinstance(index, tuple) else (index,)
    known = all(isinstance(part, slice | int) or type(part) is Tensor for part in parts)
    masks = [part.ndim for part in parts if isinstance(part, Tensor) and part.dtype == torch.bool]
    taken = sum(masks) + len(parts) - len(masks)
    if not known or taken >= logits.ndim:
        return NotImplemented
    found = make_logits(logits.head, logits.hidden[index])
    if not any(isinstance(part, Tensor) for part in parts):
        found.part_of = logits, index
    return found


def cast_up(logits: Logits, dtype: Any = torch.float32, *more: Any, **named: Any) -> Any:
    """Cast logits to a format that holds their values exactly."""
    if more or named or not isinstance(dtype, torch.dtype):
        return NotImplemented
    if torch.promote_types(logits.dtype, dtype) != dtype:
        return NotImplemented
    if dtype == logits.dtype:
        return logits
    return make_logits(replace(logits.head, dtype=dtype), logits.hidden)


def add_bias(logits: Logits, added: Any, **named: Any) -> Any:
    """Add a number per word to the logits, such as a bias outside of the layer."""
    head = logits.head
    if named or type(added) not in (Tensor, Parameter) or added.numel() != len(head.weight):
        return NotImplemented
    if added.shape[-1:] != logits.shape[-1:]:
        return NotImplemented
    stays = head.dtype == (head.half or logits.hidden.dtype)
    if head.added is not None or added.ndim > logits.ndim or not stays:
        return NotImplemented
    dtype = torch.promote_types(head.dtype, added.dtype)
    return make_logits(replace(head, added=added.flatten(), dtype=dtype), logits.hidden)


def make_contiguous(logits: Logits, *named: Any) -> Any:
    """Return the logits as contiguous; they will be, unless they are a view."""
    return NotImplemented if named or logits.part_of else logits


def cross_entropy(logits: Logits, target: Any, weight: Any = None, size_average: Any = None,
                  ignore_index: int = -100, reduce: Any = None, reduction: str = "mean",
                  label_smoothing: float = 0.0,
                  ) -> Any:
    """Replace `torch.nn.functional.cross_entropy` for logits (positions, vocabulary), in chunks."""
    plain = (weight, size_average, reduce, label_smoothing) == (None, None, None, 0.0)
    asked = plain and reduction in ("sum", "none")
    exact = logits.dtype in (torch.float32, torch.float64)
    if not asked or not exact or logits.ndim != 2:
        return NotImplemented
    if target.dtype != torch.int64 or target.shape != logits.shape[:1]:
        return NotImplemented
    logits.check_inputs_unchanged()
    return chunked_loss.cross_entropy(logits.head, logits.hidden, target, ignore_index, reduction)


KNOWN = {
    *(getattr(Tensor, name).__get__
      for name in ("shape", "dtype", "device", "ndim", "requires_grad")), Tensor.size, Tensor.dim,
    Tensor.numel, Tensor.is_floating_point,
}
"""Attributes of logits that are known without computing them."""
ANSWERS: dict[Any, Callable[..., Any]] = {
    functional.cross_entropy: cross_entropy, Tensor.__getitem__: select_positions,
    Tensor.float: cast_up, Tensor.to: cast_up, Tensor.add: add_bias,
    Tensor.contiguous: make_contiguous,
}
"""Functions that do not need all logits at once; each returns NotImplemented where it does."""

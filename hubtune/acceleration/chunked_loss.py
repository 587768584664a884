"""Chunked cross entropy of a large vocabulary, from hidden states and the output embeddings.

Only the logits of `PLACES` positions exist at a time. In fp32 and fp64, torch's
`linear_cross_entropy` computes it. In half precision that takes ten times as long on a CPU and
rounds the loss to three digits, and before torch 2.13 it does not exist: there `ChunkedEntropy`
computes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

PLACES, PLACES_OF_A_GPU = 256, 1024
"""Positions per chunk: enough that products with the table reach full speed."""
FUSED = hasattr(functional, "linear_cross_entropy")
"""True if torch has a fused loss: from 2.13 on."""


@dataclass(frozen=True)
class Head:
    """Computes logits from hidden states: a product with (vocabulary, width), then additions.

    Attributes:
        half: autocast's format of products; None without autocast.
        dtype: format of the logits.
    """

    weight: Tensor
    bias: Tensor | None
    added: Tensor | None
    half: torch.dtype | None
    dtype: torch.dtype

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return the logits of hidden states (..., width)."""
        with torch.autocast(hidden.device.type, self.half, enabled=self.half is not None):
            found = functional.linear(hidden, self.weight, self.bias)
        return (found if self.added is None else found + self.added).to(self.dtype)

    def shift(self) -> Tensor | None:
        """Return the sum of all that is added to the product, (vocabulary,); None for nothing."""
        both = [part for part in (self.bias, self.added) if part is not None]
        return None if not both else both[0] if len(both) == 1 else both[0] + both[1]

    def parts(self) -> tuple[Tensor | None, ...]:
        """Return the tensors that may be trained."""
        return self.weight, self.bias, self.added

    def with_parts(self, weight: Tensor, bias: Tensor | None, added: Tensor | None) -> Head:
        """Return the same head with other tensors."""
        return replace(self, weight=weight, bias=bias, added=added)

    def can_fuse(self, hidden: Tensor) -> bool:
        """Tell whether torch's fused loss applies: all tensors fp32, or all fp64."""
        same = all(part is None or part.dtype == self.dtype for part in (hidden, *self.parts()))
        return FUSED and same and self.half is None and self.dtype in (torch.float32, torch.float64)


def cross_entropy(head: Head, hidden: Tensor, target: Tensor, ignore_index: int,
                  reduction: str) -> Tensor:
    """Return the cross entropy of the logits of hidden states (positions, width).

    Args:
        reduction: sum or none.
    """
    places = PLACES if hidden.device.type == "cpu" else PLACES_OF_A_GPU
    if head.can_fuse(hidden):
        fused: Tensor = functional.linear_cross_entropy(
            hidden, head.weight, target, linear_bias=head.shift(), ignore_index=ignore_index,
            reduction=reduction,
            options=torch.nn.LinearCrossEntropyOptions(batch_chunk_size=places),
        )
        return fused
    chunks = ChunkedEntropy(head, target, ignore_index, places)
    found: Tensor = ChunkedEntropyFunction.apply(chunks, reduction, hidden, *head.parts())  # type: ignore[no-untyped-call]
    return found


@dataclass(frozen=True)
class ChunkedEntropy:
    """A cross entropy computed chunk by chunk, with the same buffers for all chunks."""

    head: Head
    target: Tensor
    ignore_index: int
    places: int

    def compute(self, hidden: Tensor, needed: Sequence[bool],
                given: Tensor | None = None) -> tuple[Tensor, list[Tensor | None]]:
        """Return the loss of each position, and gradients in the parameters' formats.

        Args:
            needed: for the hidden states and for each of the head's parts.
            given: gradient of each loss; None: 1.
        """
        head, form = self.head, self.head.half or hidden.dtype
        states, table, shift = hidden.detach().to(form), head.weight.detach().to(form), head.shift()
        counts = (self.target != self.ignore_index).to(head.dtype)
        target = self.target.where(counts > 0, 0)
        weights = counts if given is None else counts * given
        sums = [torch.zeros_like(part) if part is not None and need else None
                for part, need in zip((hidden, *head.parts()), needed, strict=True)]
        losses = counts.new_empty(len(target))
        products = states.new_empty(min(self.places, len(target)), len(table))
        numbers = products if form == head.dtype else products.to(head.dtype)
        other_format = sums[1] is not None and form != sums[1].dtype
        of_table = torch.empty_like(table) if other_format else None
        for start in range(0, len(target), self.places):
            at = slice(start, start + self.places)
            product, logits = products[: len(target[at])], numbers[: len(target[at])]
            torch.mm(states[at], table.T, out=product)
            if logits is not product:
                logits.copy_(product)
            if shift is not None:
                logits += shift.detach()
            losses[at] = entropy_(logits, target[at], weights[at]) * counts[at]
            if any(needed):
                self.add(sums, at, logits, product.copy_(logits), states[at], table, of_table)
        return losses, sums

    def add(self, sums: Sequence[Tensor | None], at: slice, by_logits: Tensor, rounded: Tensor,
            states: Tensor, table: Tensor, room: Tensor | None) -> None:
        """Add the gradients of one chunk to `sums`.

        Args:
            rounded: `by_logits` in the format of products.
            room: buffer for the table's gradient, in that format.
        """
        of_hidden, of_weight, *of_shifts = sums
        if of_hidden is not None:
            of_hidden[at] = torch.mm(rounded, table)
        if of_weight is not None and room is None:
            of_weight.addmm_(rounded.T, states)
        elif of_weight is not None:
            of_weight += torch.mm(rounded.T, states, out=room)
        for total in of_shifts:
            if total is not None:
                total += by_logits.sum(0)


def entropy_(logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Return the cross entropy of each position, (positions,).

    In place: `logits` becomes its gradient times `weights`.
    """
    right = target[:, None]
    logits -= logits.amax(1, keepdim=True)
    found = logits.gather(1, right)
    total = logits.exp_().sum(1, keepdim=True)
    logits *= weights[:, None] / total
    logits.scatter_add_(1, right, -weights[:, None])
    return (total.log() - found)[:, 0]


class ChunkedEntropyFunction(torch.autograd.Function):
    """Autograd of `ChunkedEntropy`, which computes the gradient of a sum in the forward pass."""

    @staticmethod
    def forward(ctx: Any, pieces: ChunkedEntropy, reduction: str, hidden: Tensor, *parts:
                Tensor | None) -> Tensor:
        ctx.pieces, ctx.hidden, ctx.sums = pieces, hidden, None
        if reduction == "none":
            return pieces.compute(hidden, [False] * 4)[0]
        losses, ctx.sums = pieces.compute(hidden, ctx.needs_input_grad[2:])
        return losses.sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.sums is None:
            needed = ctx.needs_input_grad[2:]
            return None, None, *ctx.pieces.compute(ctx.hidden, needed, gradient)[1]
        sums, ctx.sums = ctx.sums, ()  # they are large, and used once
        return None, None, *(part if part is None else part.mul_(gradient) for part in sums)

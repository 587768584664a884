"""What a CPU computes faster than torch's own way, in the same mathematics: dropout, the attention of short texts, and
products with weights that do not learn; and, on GPUs too, the loss over a large vocabulary (`hubtune.logits`).

Each takes the place of a function of `torch.nn.functional` while a step is computed, so that every architecture has them.
Measured in docs/performance.md; `train.kernels=plain` does without.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.weak import WeakIdKeyDictionary

from hubtune.acceleration import lazy_logits

LONGEST = 512
"""Keys up to which attention is computed as two matrix products; beyond, its scores take more memory than they save time."""
LONGEST_WITHOUT_DROPOUT = 64
"""The same in fp32 without dropout, where torch's own kernel is a fused one."""

FORBIDDEN = -1e30
"""What is added to the score of a forbidden key: known to bf16 and fp32 alike."""

MOST_KEPT = 2**30
"""Bytes of frozen weights that are kept in half precision beside themselves; the others are cast anew in every pass."""

own_attention = functional.scaled_dot_product_attention
own_dropout = functional.dropout
own_linear = functional.linear


class Draws:
    """Where dropout draws from: SFC64 of NumPy, four times as fast as torch's generator. Seeded anew in every micro-batch,
    so that there is no state to save."""

    def __init__(self) -> None:
        self.bits = np.random.SFC64(0)

    def seed(self, seed: int) -> None:
        self.bits = np.random.SFC64(seed)

    def kept(self, like: Tensor, p: float) -> Tensor:
        """A mask of the shape of `like`: 0 with probability p (to 2**-16), else 1 / (1 - p)."""
        count = like.numel()
        words = self.bits.random_raw(-(-count // 4)).view(np.uint16)[:count]
        mask = torch.from_numpy(words >= np.uint16(min(65_535, round(p * 65_536))))
        return mask.view(like.shape).to(like.dtype).mul_(1.0 / (1.0 - p))


draws = Draws()


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`torch.nn.functional.dropout`, with a mask that is drawn faster."""
    if not training or not 0.0 < p < 1.0 or inplace or input.device.type != "cpu" or not input.is_floating_point():
        return own_dropout(input, p, training, inplace)
    return input * draws.kept(input, p)


def attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0, is_causal: bool = False,
    scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:
    """`torch.nn.functional.scaled_dot_product_attention`: as two matrix products and a softmax where that is faster.

    query: (..., heads, queries, width); key, value: (..., heads, keys, width); mask: broadcastable to (..., queries, keys).
    """
    if enable_gqa or not suits(query, key, value, dropout_p):
        return own_attention(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    *heads, queries, width = query.shape
    keys = key.shape[-2]
    if is_causal:
        attn_mask = torch.ones(queries, keys, dtype=torch.bool).tril()
    scaled = query * (width**-0.5 if scale is None else scale)
    scores = product(scaled, key.transpose(-1, -2), additive(attn_mask, (*heads, queries, keys), query.dtype))
    weights = torch.softmax(scores, -1)
    if dropout_p:
        weights = weights * draws.kept(weights, dropout_p)
    return torch.bmm(weights, value.flatten(0, -3)).view(*heads, queries, value.shape[-1])


def suits(query: Tensor, key: Tensor, value: Tensor, dropout_p: float) -> bool:
    """Whether two matrix products are faster than torch's own kernel, which has none for bf16 and for dropout."""
    longest = LONGEST if dropout_p or query.dtype == torch.bfloat16 else LONGEST_WITHOUT_DROPOUT
    return (query.device.type == "cpu" and query.ndim > 2 and 1 < key.shape[-2] <= longest and query.dtype == key.dtype == value.dtype
            and query.shape[:-2] == key.shape[:-2] == value.shape[:-2])


def additive(mask: Tensor | None, shape: Sequence[int], dtype: torch.dtype) -> Tensor | None:
    """A mask as numbers to add to the scores. None is minus infinity: a row in which all is forbidden would not be a number."""
    if mask is None:
        return None
    mask = torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, FORBIDDEN) if mask.dtype == torch.bool else mask.clamp(min=FORBIDDEN)
    return mask.to(dtype).expand(shape).reshape(-1, *shape[-2:])


def product(a: Tensor, b: Tensor, added: Tensor | None) -> Tensor:
    """Matrix products of all leading places, as (places, rows, columns), with something added."""
    a, b = a.flatten(0, -3), b.flatten(0, -3)
    return torch.bmm(a, b) if added is None else torch.baddbmm(added, a, b)


class Frozen:
    """Weights that do not learn, in half precision. Autocast keeps such a copy only of those that learn, and casts all others
    anew in every forward pass."""

    def __init__(self) -> None:
        self.copies: Any = WeakIdKeyDictionary()

    def of(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """The weight as autocast would cast it; itself where too many are kept already."""
        state = (weight._version, weight.data_ptr(), dtype)
        known: tuple[Any, Tensor] | None = self.copies.get(weight)
        if known and known[0] == state:
            return known[1]
        self.copies.pop(weight, None)
        if weight.numel() * dtype.itemsize + sum(kept.nbytes for _, kept in self.copies.values()) > MOST_KEPT:
            return weight
        copy = weight.detach().to(dtype)
        self.copies[weight] = state, copy
        return copy


frozen = Frozen()


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`, with a frozen weight cast once."""
    cast = not weight.requires_grad and weight.dtype == torch.float32 and weight.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    return own_linear(input, frozen.of(weight, torch.get_autocast_dtype("cpu")) if cast else weight, bias)


linear_later, own_linear_later = lazy_logits.put_off(linear), lazy_logits.put_off(own_linear)


def fitting(names: Sequence[str], again: bool, shared: bool) -> Sequence[str]:
    """Those of the kernels that can be used. again: blocks are compiled, or computed again in the backward pass, and what is drawn in
    them has to be drawn by torch, which knows how; shared: weights are there in their block's pass alone."""
    return [name for name in names if not (shared if name == "logits" else again)]


@contextmanager
def using(names: Sequence[str], seed: int) -> Iterator[None]:
    """Compute with these kernels; a global change, undone at the end, so only ever around one step."""
    places: dict[str, Any] = {"attention": ("scaled_dot_product_attention", attention), "dropout": ("dropout", dropout),
                              "linear": ("linear", linear), "logits": ("linear", linear_later if "linear" in names else own_linear_later)}
    draws.seed(seed)
    before = {place: getattr(functional, place) for place, _ in map(places.__getitem__, names)}
    for name in names:
        setattr(functional, *places[name])
    try:
        yield
    finally:
        for place, function in before.items():
            setattr(functional, place, function)

"""Kernels: replacements of torch functions during a step or a prediction, in one thread.

A `TorchFunctionMode` passes each call of torch from Python to this module first, in the thread that
entered it. So every architecture gets row-wise dropout (`row_dropout`) and attention of short texts
as two matrix products, without patching torch. Layers with large vocabularies defer their logits
(`lazy_logits`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, functional
from torch.overrides import TorchFunctionMode

from hubtune.acceleration import lazy_logits
from hubtune.acceleration.row_dropout import RowDraws
from hubtune.devices import fp64

LONGEST = 512
"""Maximum number of keys for attention as two products; beyond, its scores take too much memory."""
LONGEST_WITHOUT_DROPOUT = 64
"""The same in fp32 without dropout, where torch has a fused kernel."""

FORBIDDEN = -1e30
"""Added to the score of a masked key; representable in bf16 and fp32."""

Function = Callable[..., Any]
own_attention = functional.scaled_dot_product_attention
current = threading.local()
"""`current.functions`: the functions of the step that this thread computes."""


class StepFunctions(TorchFunctionMode):
    """Replacements of some functions of torch.

    Attributes:
        kernels: names of `hubtune.devices.device.KERNELS`.
        draws: random numbers of dropout; None: torch's generator.
    """

    def __init__(self, kernels: Collection[str], draws: RowDraws | None) -> None:
        super().__init__()
        self.kernels, self.draws = kernels, draws
        self.replaced: dict[Any, Function] = {}
        if "attention" in kernels or draws is not None:
            self.replaced[own_attention] = self.attention
        if draws is not None:
            self.replaced |= {
                functional.dropout: self.dropout, torch.rand: self.rand,
                torch.rand_like: self.rand_like, functional.dropout1d: self.channel_dropout,
                functional.dropout2d: self.channel_dropout,
                functional.dropout3d: self.channel_dropout,
            }

    def __torch_function__(self, function: Function, types: Any, args: Any = (),
                           kwargs: Any = None) -> Any:
        return self.replaced.get(function, function)(*args, **(kwargs or {}))

    def __enter__(self) -> StepFunctions:
        self.outer = getattr(current, "functions", None)
        current.functions = self
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        current.functions = self.outer

    def dropout(self, input: Tensor, p: float = 0.5, training: bool = True,
                inplace: bool = False) -> Tensor:
        """Replace `torch.nn.functional.dropout`."""
        if not training or not 0.0 < p < 1.0 or not input.is_floating_point() or self.draws is None:
            return functional.dropout(input, p, training, inplace)
        mask = self.draws.mask(input, p)
        return input.mul_(mask) if inplace else input * mask

    def channel_dropout(self, input: Tensor, p: float = 0.5, training: bool = True,
                        inplace: bool = False) -> Tensor:
        """Replace `dropout1d` to `dropout3d`, which drop whole channels.

        input: (rows, channels, ...).
        """
        if not training or not 0.0 < p < 1.0 or self.draws is None:
            return functional.dropout(input, p, training, inplace)
        mask = self.draws.mask(input, p, (*input.shape[:2], *[1] * (input.ndim - 2)))
        return input.mul_(mask) if inplace else input * mask

    def rand(self, *size: Any, dtype: torch.dtype | None = None, device: Any = None,
             **more: Any) -> Tensor:
        """Replace `torch.rand`, used by stochastic depth per row, and by layer dropout per call."""
        shape = tuple(size[0] if len(size) == 1 and not isinstance(size[0], int) else size)
        if more or self.draws is None:
            return torch.rand(*size, dtype=dtype, device=device, **more)
        found = self.draws.uniform(shape, torch.device(device or torch.get_default_device()))
        return found.to(dtype or torch.get_default_dtype())

    def rand_like(self, input: Tensor, *, dtype: torch.dtype | None = None, **more: Any) -> Tensor:
        """Replace `torch.rand_like`."""
        if more or self.draws is None:
            return torch.rand_like(input, dtype=dtype, **more)
        return self.draws.uniform(input.shape, input.device).to(dtype or input.dtype)

    def attention(self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
                  dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
                  enable_gqa: bool = False,
                  ) -> Tensor:
        """Replace `scaled_dot_product_attention` by two products where `use_two_products`."""
        draws = self.draws if dropout_p else None
        if not use_two_products(query, key, value, dropout_p, fast="attention" in self.kernels,
                                drawn=draws is not None):
            return own_attention(query, key, value, attn_mask, dropout_p, is_causal, scale=scale,
                                 enable_gqa=enable_gqa)
        return attention(query, key, value, attn_mask, dropout_p, is_causal, scale, draws)


def use_two_products(query: Tensor, key: Tensor, value: Tensor, dropout_p: float, *, fast: bool,
                     drawn: bool) -> bool:
    """Tell whether to compute attention as two products.

    That is where torch has no fused kernel for it, or where dropout depends on rows. GPUs have
    fused kernels with a dropout of their own, which long texts need: there dropout is torch's and
    depends on the micro-batch.

    Args:
        fast: speed alone is a reason.
        drawn: there is dropout, drawn by row.
    """
    heads, shared = query.shape[:-2], key.shape[:-2]
    alike = (query.ndim > 2 and query.dtype == key.dtype == value.dtype
             and shared == value.shape[:-2] and heads[:-1] == shared[:-1]
             and heads[-1] % shared[-1] == 0)
    keys = key.shape[-2]
    if drawn:
        return alike and (query.device.type == "cpu" or keys <= LONGEST)
    longest = LONGEST if dropout_p or query.dtype == torch.bfloat16 else LONGEST_WITHOUT_DROPOUT
    return alike and fast and query.device.type == "cpu" and not dropout_p and 1 < keys <= longest


def attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, dropout_p: float,
              is_causal: bool, scale: float | None, draws: RowDraws | None,
              ) -> Tensor:
    """Compute attention as two products and a softmax, grouping heads with shared keys.

    Args:
        query: (..., heads, queries, width).
        key, value: (..., heads or a divisor of it, keys, width).
        attn_mask: broadcastable to (..., heads, queries, keys).

    Returns:
        (..., heads, queries, width of the values).
    """
    *heads, queries, width = query.shape
    keys, sharing = key.shape[-2], query.shape[-3] // key.shape[-3]
    if is_causal:
        attn_mask = torch.ones(queries, keys, dtype=torch.bool, device=query.device).tril()
    rows = (-1, sharing * queries)
    scaled = (query * (width**-0.5 if scale is None else scale)).reshape(*rows, width)
    transposed = key.transpose(-1, -2).flatten(0, -3)
    added = additive_mask(attn_mask, (*heads, queries, keys), query.dtype)
    if added is None:
        scores = torch.bmm(scaled, transposed)
    else:
        scores = torch.baddbmm(added.reshape(*rows, keys), scaled, transposed)
    weights = torch.softmax(scores, -1)
    if draws is not None:
        weights = weights * draws.mask(weights, dropout_p, (*heads, queries, keys)).view_as(weights)
    return torch.bmm(weights, value.flatten(0, -3)).view(*heads, queries, value.shape[-1])


def additive_mask(mask: Tensor | None, shape: Sequence[int], dtype: torch.dtype) -> Tensor | None:
    """Convert a mask to finite numbers to add to the scores: fully masked rows must not be NaN."""
    if mask is None:
        return None
    lowest = max(FORBIDDEN, torch.finfo(dtype).min)  # fp16 ends at 65504
    if mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, lowest)
    else:
        mask = mask.clamp(min=lowest)
    return mask.to(dtype).expand(shape).reshape(-1, *shape[-2:])


def select_kernels(kernels: Collection[str], *, sharded: bool) -> tuple[str, ...]:
    """Return the kernels that a training can use: deferred logits need an unsharded table."""
    return tuple(name for name in kernels if not (sharded and name == "logits"))


@contextmanager
def use_kernels(model: Module, kernels: Collection[str],
                draws: RowDraws | None = None) -> Iterator[None]:
    """Use these kernels in this thread until the block ends. draws: of dropout, in training."""
    with ExitStack() as stack:
        if "logits" in kernels:
            stack.enter_context(lazy_logits.defer_large_layers(model))
        if draws is not None or "attention" in kernels:
            stack.enter_context(StepFunctions(kernels, draws))
        yield


def recomputation_contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Return contexts for `torch.utils.checkpoint` (`context_fn`), which replay the forward pass.

    A backward pass runs outside of all function modes, on a GPU in another thread. Dropout
    continues from the next call.
    """
    functions: StepFunctions | None = getattr(current, "functions", None)
    draws = None
    if functions is not None and functions.draws is not None:
        draws = functions.draws.rewind(functions.draws.call)
    in_fp64 = torch.get_default_dtype() == torch.float64
    return nullcontext(), replay_functions(functions, draws, in_fp64)


@contextmanager
def replay_functions(functions: StepFunctions | None, draws: RowDraws | None,
                     in_fp64: bool) -> Iterator[None]:
    """Replay the functions of a forward pass; None: torch's."""
    with ExitStack() as stack:
        if in_fp64:
            stack.enter_context(fp64.fp64_everywhere())
        if functions is not None:
            stack.enter_context(StepFunctions(functions.kernels, draws))
        yield

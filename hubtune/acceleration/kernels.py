"""Functions of torch that are computed in another way during a step of training or a prediction, for our thread alone.

A `TorchFunctionMode` gives each call of torch from Python to this module first, in the thread that entered it, and no other.
So every architecture has the row-wise dropout (`row_dropout`) and the attention of short texts as two matrix products, and
nothing of torch is replaced. The logits of a large vocabulary are put off by the layers that make them (`lazy_logits`).
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
"""Keys up to which attention is computed as two matrix products; beyond, its scores take more memory than they save time."""
LONGEST_WITHOUT_DROPOUT = 64
"""The same in fp32 without dropout, where torch's own kernel is a fused one."""

FORBIDDEN = -1e30
"""What is added to the score of a masked key: a number of bf16 and of fp32."""

Function = Callable[..., Any]
own_attention = functional.scaled_dot_product_attention
current = threading.local()
"""`current.functions`: the functions of the step that this thread computes."""


class StepFunctions(TorchFunctionMode):
    """Torch, but for some functions.

    kernels: names of `hubtune.devices.device.KERNELS`. draws: where dropout comes from; None: from torch's generator.
    """

    def __init__(self, kernels: Collection[str], draws: RowDraws | None) -> None:
        super().__init__()
        self.kernels, self.draws = kernels, draws
        self.replaced: dict[Any, Function] = {}
        if "attention" in kernels or draws is not None:
            self.replaced[own_attention] = self.attention
        if draws is not None:
            self.replaced |= {
                functional.dropout: self.dropout, functional.dropout1d: self.channel_dropout, functional.dropout2d: self.channel_dropout,
                functional.dropout3d: self.channel_dropout, torch.rand: self.rand, torch.rand_like: self.rand_like,
            }

    def __torch_function__(self, function: Function, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.replaced.get(function, function)(*args, **(kwargs or {}))

    def __enter__(self) -> StepFunctions:
        self.outer = getattr(current, "functions", None)
        current.functions = self
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        current.functions = self.outer

    def dropout(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        """`torch.nn.functional.dropout`."""
        if not training or not 0.0 < p < 1.0 or not input.is_floating_point() or self.draws is None:
            return functional.dropout(input, p, training, inplace)
        mask = self.draws.keep(input, p)
        return input.mul_(mask) if inplace else input * mask

    def channel_dropout(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        """`torch.nn.functional.dropout1d` to `dropout3d`: all of a channel or nothing. input: (rows, channels, ...)."""
        if not training or not 0.0 < p < 1.0 or self.draws is None:
            return functional.dropout(input, p, training, inplace)
        mask = self.draws.keep(input, p, (*input.shape[:2], *[1] * (input.ndim - 2)))
        return input.mul_(mask) if inplace else input * mask

    def rand(self, *size: Any, dtype: torch.dtype | None = None, device: Any = None, **more: Any) -> Tensor:
        """`torch.rand`, which stochastic depth draws rows from, and layer dropout a single number."""
        shape = tuple(size[0] if len(size) == 1 and not isinstance(size[0], int) else size)
        if more or self.draws is None:
            return torch.rand(*size, dtype=dtype, device=device, **more)
        found = self.draws.uniform(shape, torch.device(device or torch.get_default_device()))
        return found.to(dtype or torch.get_default_dtype())

    def rand_like(self, input: Tensor, *, dtype: torch.dtype | None = None, **more: Any) -> Tensor:
        """`torch.rand_like`."""
        if more or self.draws is None:
            return torch.rand_like(input, dtype=dtype, **more)
        return self.draws.uniform(input.shape, input.device).to(dtype or input.dtype)

    def attention(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
        is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
    ) -> Tensor:
        """`torch.nn.functional.scaled_dot_product_attention`, as two products where that is faster or where it has dropout."""
        draws = self.draws if dropout_p else None
        if not suits(query, key, value, dropout_p, fast="attention" in self.kernels, drawn=draws is not None):
            return own_attention(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
        return attention(query, key, value, attn_mask, dropout_p, is_causal, scale, draws)


def suits(query: Tensor, key: Tensor, value: Tensor, dropout_p: float, *, fast: bool, drawn: bool) -> bool:
    """Whether attention is computed as two products: where torch has no fused kernel for it, or its dropout is ours.

    fast: speed alone is a reason. drawn: there is dropout, and it is drawn by row. GPUs have fused kernels with a dropout of
    their own, which long texts need: there it is torch's, and follows the cut.
    """
    heads, shared = query.shape[:-2], key.shape[:-2]
    alike = (query.ndim > 2 and query.dtype == key.dtype == value.dtype and shared == value.shape[:-2] and heads[:-1] == shared[:-1]
             and heads[-1] % shared[-1] == 0)
    keys = key.shape[-2]
    if drawn:
        return alike and (query.device.type == "cpu" or keys <= LONGEST)
    longest = LONGEST if dropout_p or query.dtype == torch.bfloat16 else LONGEST_WITHOUT_DROPOUT
    return alike and fast and query.device.type == "cpu" and not dropout_p and 1 < keys <= longest


def attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, dropout_p: float, is_causal: bool, scale: float | None,
    draws: RowDraws | None,
) -> Tensor:
    """Attention as two matrix products and a softmax; heads that share keys and values are rows of one product.

    query: (..., heads, queries, width); key, value: (..., heads or a divisor of it, keys, width); mask: broadcastable to
    (..., heads, queries, keys). Returns (..., heads, queries, width of the values).
    """
    *heads, queries, width = query.shape
    keys, sharing = key.shape[-2], query.shape[-3] // key.shape[-3]
    if is_causal:
        attn_mask = torch.ones(queries, keys, dtype=torch.bool, device=query.device).tril()
    rows = (-1, sharing * queries)
    scaled = (query * (width**-0.5 if scale is None else scale)).reshape(*rows, width)
    transposed = key.transpose(-1, -2).flatten(0, -3)
    added = additive(attn_mask, (*heads, queries, keys), query.dtype)
    scores = torch.bmm(scaled, transposed) if added is None else torch.baddbmm(added.reshape(*rows, keys), scaled, transposed)
    weights = torch.softmax(scores, -1)
    if draws is not None:
        weights = weights * draws.keep(weights, dropout_p, (*heads, queries, keys)).view_as(weights)
    return torch.bmm(weights, value.flatten(0, -3)).view(*heads, queries, value.shape[-1])


def additive(mask: Tensor | None, shape: Sequence[int], dtype: torch.dtype) -> Tensor | None:
    """A mask as numbers to add to the scores. None is minus infinity: a row in which all is masked would not be a number."""
    if mask is None:
        return None
    lowest = max(FORBIDDEN, torch.finfo(dtype).min)  # fp16 ends at 65504
    if mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, lowest)
    else:
        mask = mask.clamp(min=lowest)
    return mask.to(dtype).expand(shape).reshape(-1, *shape[-2:])


def usable(kernels: Collection[str], *, sharded: bool) -> tuple[str, ...]:
    """The kernels that a training can use: a table that is shared out over processes is gone when the loss asks for it."""
    return tuple(name for name in kernels if not (sharded and name == "logits"))


@contextmanager
def applied(model: Module, kernels: Collection[str], draws: RowDraws | None = None) -> Iterator[None]:
    """Compute with these kernels, in this thread, until the block ends. draws: of dropout, where the model trains."""
    with ExitStack() as stack:
        if "logits" in kernels:
            stack.enter_context(lazy_logits.applied(model))
        if draws is not None or "attention" in kernels:
            stack.enter_context(StepFunctions(kernels, draws))
        yield


def recomputation() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """For `torch.utils.checkpoint`, as its `context_fn`: activations are computed again as they were at first.

    A backward pass runs outside of all function modes, on a GPU in another thread. Dropout goes on from the call that was next.
    """
    functions: StepFunctions | None = getattr(current, "functions", None)
    draws = functions.draws.again(functions.draws.call) if functions is not None and functions.draws is not None else None
    return nullcontext(), recomputing(functions, draws, torch.get_default_dtype() == torch.float64)


@contextmanager
def recomputing(functions: StepFunctions | None, draws: RowDraws | None, in_fp64: bool) -> Iterator[None]:
    """The functions of a forward pass once more; None: torch's."""
    with ExitStack() as stack:
        if in_fp64:
            stack.enter_context(fp64.fp64_everywhere())
        if functions is not None:
            stack.enter_context(StepFunctions(functions.kernels, draws))
        yield

"""Batches of examples on the model's device, in its number format and in evaluation mode."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from hubtune.contract import Base, Batch, Task
from hubtune.contract.validation import collated
from hubtune.data.batching import evaluation_batches
from hubtune.devices import fp64

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.nn import Module

MAX_EXAMPLES = 64
"""The most examples of an evaluation batch."""
MAX_TOKENS = 8192
"""The most padded tokens of an evaluation batch, where the device has no limit of its own."""
MAX_TOKENS_ON = {"cpu": 1024}
"""The same by kind of device. The activations of a layer have to stay in a CPU's cache (MiniLM on
85 tokens in bf16: 10.6 ms per row at 1024, 15 to 18 at 8192)."""


def max_tokens_on(device: str) -> int:
    """Return the most padded tokens of an evaluation batch on a kind of device."""
    return MAX_TOKENS_ON.get(device, MAX_TOKENS)


def batch_indices(
    model: Module,
    sizes: Sequence[int] | NDArray[np.int64],
    uniform: bool,
    *,
    max_examples: int = MAX_EXAMPLES,
    max_tokens: int = MAX_TOKENS,
) -> list[list[int]]:
    """Group examples of these sizes into batches for the model's device.

    uniform: the examples of a batch have one size.
    """
    limit = min(max_tokens, max_tokens_on(next(model.parameters()).device.type))
    return evaluation_batches(sizes, limit, max_examples, uniform)


def make_batch(
    model: Module, task: Task[Any], examples: Sequence[Any], base: Base, rngs: Any = None
) -> Batch:
    """Collate examples on the model's device, in fp64 if its weights are."""
    batch = collated(task, examples, base, rngs)
    weight = next(model.parameters())
    dtype = torch.float64 if weight.dtype == torch.float64 else None
    return replace(
        batch,
        inputs=to_device(batch.inputs, weight.device, dtype),
        targets=to_device(batch.targets, weight.device, dtype),
    )


def to_device(value: Any, device: Any, dtype: torch.dtype | None = None) -> Any:
    """Move nested tensors to a device. dtype: of those with floating point numbers."""
    if isinstance(value, torch.Tensor):
        return value.to(device, dtype if value.is_floating_point() else None)
    if isinstance(value, dict):
        return {key: to_device(item, device, dtype) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(to_device(item, device, dtype) for item in value)
    return value


@contextmanager
def evaluation_mode(model: Module) -> Iterator[Module]:
    """Switch dropout and gradients off, and afterwards restore the mode of every module."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    weight = next(model.parameters(), None)
    is_fp64 = weight is not None and weight.dtype == torch.float64
    try:
        with torch.no_grad(), fp64.fp64_everywhere() if is_fp64 else nullcontext():
            yield model
    finally:
        for module, mode in modes.items():
            module.training = mode

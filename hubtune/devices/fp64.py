"""fp64 everywhere: keep fp64 where a model's own code casts to fp32.

transformers casts scores to fp32, which makes half precision exact but fp64 inexact (1e-7); the
lowest fp64 number, which masks positions, becomes minus infinity, and softmax of a fully masked row
NaN.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn import Module
from torch.overrides import TorchFunctionMode


class Wide(TorchFunctionMode):
    """Replaces fp32 by fp64 in arguments of torch functions."""

    def __torch_function__(self, function: Callable[..., Any], types: Any, args: Any = (),
                           kwargs: Any = None) -> Any:
        if function is torch.Tensor.float:
            return args[0].double()
        named = {name: to_fp64(value) for name, value in (kwargs or {}).items()}
        return function(*map(to_fp64, args), **named)


def to_fp64(value: Any) -> Any:
    """Return torch.float64 for torch.float32; other values unchanged."""
    return torch.float64 if value is torch.float32 else value


@contextlib.contextmanager
def fp64_everywhere() -> Iterator[None]:
    """Compute in fp64 by default, until the block ends."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with Wide():
            yield
    finally:
        torch.set_default_dtype(before)


def convert_model(narrow: Module) -> Module:
    """Convert a model to fp64. Experts run one by one, since the grouped product has no fp64."""
    switch = getattr(narrow, "set_experts_implementation", None)
    if switch is not None:
        switch("eager")
    return narrow.double()

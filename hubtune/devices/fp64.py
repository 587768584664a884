"""fp64 throughout: what a model's own code takes into fp32 stays fp64.

transformers takes scores into fp32, which makes half precision exact and fp64 inexact: to 1e-7 only, and fp64's least
number, which stands for a forbidden place, becomes minus infinity, of which a softmax makes what is no number.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn import Module
from torch.overrides import TorchFunctionMode


class Wide(TorchFunctionMode):
    """Gives fp64 wherever fp32 is asked for."""

    def __torch_function__(self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.Tensor.float:
            return args[0].double()
        named = {name: widened(value) for name, value in (kwargs or {}).items()}
        return function(*map(widened, args), **named)


def widened(value: Any) -> Any:
    """fp64 for fp32; anything else as it is."""
    return torch.float64 if value is torch.float32 else value


@contextlib.contextmanager
def throughout() -> Iterator[None]:
    """Compute so for a while."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with Wide():
            yield
    finally:
        torch.set_default_dtype(before)


def model(narrow: Module) -> Module:
    """The model with fp64 weights. Its experts are multiplied one by one: the joined product knows no fp64."""
    switch = getattr(narrow, "set_experts_implementation", None)
    if switch is not None:
        switch("eager")
    return narrow.double()

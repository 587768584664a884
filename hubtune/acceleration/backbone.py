"""A submodule whose `forward` is looked at or answered for, and what it returns, taken apart and put together again."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.nn import Module


class Refused(Exception):
    """Why a backbone's outputs cannot be computed once."""


class Backbone:
    """A submodule whose outputs can be recorded, or given without computing them, inside `answering`."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.forward = module.forward

    @contextmanager
    def answering(self, answer: Callable[[], Any] | None) -> Iterator[list[Any]]:
        """Give the outputs of `answer` (None: the computed ones) for as long as the context; yields the outputs given."""
        given: list[Any] = []

        def forward(*arguments: Any, **named: Any) -> Any:
            output = self.forward(*arguments, **named) if answer is None else answer()
            given.append(output)
            return output

        before = vars(self.module).get("forward")
        self.module.forward = functools.update_wrapper(forward, self.forward)
        try:
            yield given
        finally:
            del self.module.forward
            if before is not None:
                self.module.forward = before


def tensors_in(output: Any) -> dict[str, Tensor]:
    """The numbers that are not whole in what a backbone returns, by field; a bare tensor has no name."""
    if isinstance(output, Tensor):
        return {"": output}
    if not (isinstance(output, Mapping) and dataclasses.is_dataclass(output)):
        raise Refused(f"the backbone returns a {type(output).__name__}")
    return {str(name): value for name, value in output.items() if isinstance(value, Tensor) and value.is_floating_point()}


def rebuilt(like: Any, tensors: Mapping[str, Any]) -> Any:
    """An output of the same kind with other tensors."""
    return tensors[""] if "" in tensors else type(like)(**tensors)

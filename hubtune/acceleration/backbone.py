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
    """A submodule whose `forward` is looked at, or answered for. Undone by `release`."""

    def __init__(self, module: Module) -> None:
        self.module, self.real = module, module.forward
        self.before = vars(module).get("forward")
        self.seen: list[Any] = []
        self.answer: Callable[[], Any] | None = None
        module.forward = functools.update_wrapper(lambda *given, **named: self.called(*given, **named), self.real)

    def called(self, *given: Any, **named: Any) -> Any:
        """In place of `forward`."""
        output = self.real(*given, **named) if self.answer is None else self.answer()
        self.seen.append(output)
        return output

    @contextmanager
    def answering(self, answer: Callable[[], Any] | None) -> Iterator[list[Any]]:
        """For a while, give what `answer` gives (None: the real outputs); yields what was given."""
        before, self.answer, self.seen = self.answer, answer, []
        try:
            yield self.seen
        finally:
            self.answer, self.seen = before, []

    def release(self) -> None:
        """`forward` as it was."""
        vars(self.module).pop("forward", None)
        if self.before is not None:
            self.module.forward = self.before


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

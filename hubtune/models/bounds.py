"""Bounds on what a configuration asks for, before the model that it describes is built.

Configuration classes and models loop over counts, so a count without bound takes time and memory
without bound. What a model takes is counted while it is built on the meta device.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from math import prod
from typing import TYPE_CHECKING, Any

from hubtune.devices import memory
from hubtune.errors import ModelError

if TYPE_CHECKING:
    from torch.nn import Module

COUNTS: tuple[tuple[re.Pattern[str], int, str], ...] = (
    (re.compile(r"(num_labels|num_classes)$"), 1_000_000, "labels"),
    (re.compile(r"(layers?|depths?|blocks|stages|experts)$"), 10_000, "parts"),
    (re.compile(r"(position_embeddings|positions|n_ctx|seq_len|seq_length)$"), 2**27, "positions"),
)
"""Keys that libraries loop over, by the end of their name, and the largest value that is read."""
LARGEST_LIST = 100_000
"""Entries of a list or an object in a configuration at most, but for the names of labels."""
DEPTH = 50
"""Nested values of a configuration at most."""
TENSORS = 100_000
"""Tensors of a model at most: the largest mixtures of experts have half of that."""
SLACK = 4
"""Numbers that are made while a model is built, as a multiple of what the machine can hold."""
BYTES = 4
"""Of a weight, in fp32."""
QUANTIZED_BYTES = 0.6
"""Of a weight that is loaded in 4 bits, with its scales."""


def check_counts(config: Mapping[str, Any], where: str) -> None:
    """Refuse counts that no model has, before a library loops over them.

    Args:
        config: the contents of a config.json.

    Raises:
        ModelError: with the key, its value and the largest that is read.
    """
    open_: list[tuple[str, Any, int]] = [("", config, 0)]
    while open_:
        name, value, depth = open_.pop()
        if isinstance(value, Mapping | list):
            if depth > DEPTH:
                raise ModelError(f"'{name:.200}' is nested more than {DEPTH} deep.", where=where,
                                 hint="Correct config.json, or fetch the model again.")
            if len(value) > LARGEST_LIST and "label" not in name:
                raise too_large(name, len(value), LARGEST_LIST, "entries", where)
            inner = value.items() if isinstance(value, Mapping) else ((name, item) for item in value)
            open_ += [(f"{name}.{key}".lstrip(".") if isinstance(value, Mapping) else name, item,
                       depth + 1) for key, item in inner]
        elif isinstance(value, int | float) and not isinstance(value, bool):
            for pattern, most, what in COUNTS:
                if value > most and pattern.search(name):
                    raise too_large(name, value, most, what, where)


def too_large(name: str, value: float, most: int, what: str, where: str) -> ModelError:
    """Return the error for a count that no model has."""
    return ModelError(f"'{name:.200}' asks for {value:,} {what}; {most:,} are the most that is read.",
                      where=where, hint="Correct config.json, or fetch the model again.")


@contextlib.contextmanager
def bounded_build(repo: str) -> Iterator[None]:
    """Stop a model that is built on the meta device where it grows beyond every bound.

    Raises:
        ModelError: more tensors than any model has, or more numbers than this machine can hold.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    most = memory.total_bytes()
    makers = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn}

    class Count(TorchFunctionMode):
        tensors = numbers = 0

        def __torch_function__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (),
            kwargs: Mapping[str, Any] | None = None,
        ) -> Any:
            if func in makers:
                self.tensors += 1
                self.numbers += size_of(args)
                if self.tensors > TENSORS:
                    raise ModelError(
                        f"config.json asks for more than {TENSORS:,} tensors, which no model has.",
                        where=repo, hint="Correct its counts of layers, experts or stages.")
                if most is not None and self.numbers * BYTES > SLACK * most:
                    raise too_big(repo, self.numbers, BYTES, most, "at least ")
            return func(*args, **(kwargs or {}))

    with Count():
        yield


def size_of(args: tuple[Any, ...]) -> int:
    """Return how many numbers a tensor has, from the arguments that give its shape."""
    shape = args[0] if args and isinstance(args[0], list | tuple) else args
    return prod(size for size in shape if isinstance(size, int))


def check_memory(repo: str, model: Module, quantized: bool) -> None:
    """Refuse a model whose weights alone are more than this machine holds.

    Args:
        model: on the meta device.
        quantized: its weights are loaded in 4 bits.

    Raises:
        ModelError: with both sizes.
    """
    most = memory.total_bytes()
    numbers = sum(parameter.numel() for parameter in model.parameters())
    size = QUANTIZED_BYTES if quantized else BYTES
    if most is not None and numbers * size > most:
        raise too_big(repo, numbers, size, most)


def too_big(repo: str, numbers: int, size: float, most: int, least: str = "") -> ModelError:
    """Return the error for a model that this machine cannot hold."""
    smaller = "" if size < BYTES else "--strategy qlora loads weights in 4 bits. "
    return ModelError(
        f"by config.json it has {least}{numbers:,} weights, which take {numbers * size / 1e9:,.1f} GB; "
        f"this machine has {most / 1e9:,.1f} GB.", where=repo,
        hint=f"{smaller}Take a smaller model or a larger machine; if the model is not that large, "
        "correct the sizes in config.json.")

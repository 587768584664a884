"""Whether a model's code takes what a task gives it, in which number formats, and whether padding changes its answers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from accelerate.utils.memory import should_reduce_batch_size

from hubtune.contract import Base, Task
from hubtune.data.dataset import EncodedDataset
from hubtune.devices import device, fp64, number_formats, processes
from hubtune.devices.device import Compute
from hubtune.errors import ModelError
from hubtune.evaluation import inference

if TYPE_CHECKING:
    from torch.nn import Module

EXACT = ("fp32", "tf32")
"""Formats in which a model computes that computes at all."""


def looked_at(model: Module, task: Task[Any], base: Base, encoded: EncodedDataset, compute: Compute, free: bool) -> Compute:
    """How this model is computed: with examples of one size if padding changes its answers, and in another format if it
    fails in the one that was chosen and that is `free`. Weights are fp64 afterwards, where it computes in that.

    Raises ModelError where it fails on its longest example, or in a format that was asked for.
    """
    if next(model.parameters()).device.type != compute.device:
        model.to(compute.device)
    with naming(task, base):
        inference.finite(model, task, base, encoded)
    reason = None if compute.precision in EXACT else processes.together(unfit(model, task, base, encoded, compute, free))
    if reason is not None and not free:
        raise processes.once(ModelError(f"it does not compute in {compute.precision}: {reason}.", where=base.repo,
                                     hint="Leave train.precision at auto."))
    if reason is not None:
        compute = replace(compute, precision="fp32", why=f"not {compute.precision}: {reason}")
    return replace(compute, uniform=processes.together(inference.padding_matters(model, task, base, encoded)))


def unfit(model: Module, task: Task[Any], base: Base, encoded: EncodedDataset, compute: Compute, free: bool) -> str | None:
    """Why the model cannot be trained in a number format: what its family says, where the choice is free, or what it does."""
    known = number_formats.overflows(model) if free and compute.precision == "fp16" else None
    if known is not None:
        return known
    if compute.precision == "fp64":
        fp64.model(model)
    try:
        with device.learning(compute), device.autocast(compute):
            fine = inference.finite(model, task, base, encoded)
    except Exception as error:  # whatever its code raises; in fp32 it did not
        if out_of_memory(error):
            raise
        return f"its code fails with {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return None if fine else f"its loss in {compute.precision} is no number"


@contextlib.contextmanager
def naming(task: Task[Any], base: Base) -> Iterator[None]:
    """What the model's own code raises becomes an error that says so; what a plugin raises stays as it is."""
    try:
        yield
    except Exception as error:
        if not of_model(error) or out_of_memory(error):
            raise
        reason = " ".join(str(error).split()).rstrip(".")[:300]
        raise ModelError(
            f"the code of '{base.config.model_type}' models fails on the examples of '{task.name}': {type(error).__name__}: {reason}.",
            where=base.repo, hint="It may need other inputs, or lengths of its own. Take another model; --debug shows where it fails.",
        ) from error


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory did not suffice, on whatever device."""
    return bool(should_reduce_batch_size(error))


def of_model(error: Exception) -> bool:
    """Whether it was raised within transformers, or below it: plugins call models, and models call no plugins."""
    if type(error).__module__.partition(".")[0] == "hubtune":
        return False
    place = error.__traceback__
    while place is not None:
        if str(place.tb_frame.f_globals.get("__name__", "")).startswith("transformers."):
            return True
        place = place.tb_next
    return False

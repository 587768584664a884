"""Check before step 0 what a model can do: a task's examples, number formats, padding."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from accelerate.utils.memory import should_reduce_batch_size

from hubtune import environment
from hubtune.contract import Base, GenerativeTask, Prediction, Task
from hubtune.contract.validation import loss_terms
from hubtune.data.dataset import EncodedDataset
from hubtune.devices import device, fp64, processes
from hubtune.devices.device import Compute
from hubtune.errors import ModelError
from hubtune.evaluation.batches import evaluation_mode, make_batch
from hubtune.evaluation.equivalence import relative_difference, spread_by_size
from hubtune.evaluation.inference import postprocess
from hubtune.models import compat
from hubtune.models.heads import choice

if TYPE_CHECKING:
    from torch.nn import Module

SAFE_PRECISIONS = ("fp32", "tf32")
"""Formats in which every model computes that computes at all."""
MODEL_CODE = ("transformers.", "hubtune.models.heads.modeling")
"""Beginnings of the names of modules that models are made of."""
PADDING_EXAMPLES = 4
"""Examples that tell whether outputs depend on padding, from the shortest to the longest."""
PADDING_TOLERANCE = 1e-5
"""Rounding alone stays far below this part of an output."""


def check_model(
    model: Module,
    task: Task[Any],
    base: Base,
    encoded: EncodedDataset,
    compute: Compute,
    *,
    may_fall_back: bool,
) -> Compute:
    """Choose how this model is computed: whether batches are uniform, and the precision.

    Args:
        may_fall_back: compute in fp32 where the model fails in the chosen precision.

    Raises:
        ModelError: the model fails on its longest example, or in a precision that was asked for.
    """
    if next(model.parameters()).device.type != compute.device:
        model.to(compute.device)
    with model_errors(task, base):
        has_finite_loss(model, task, base, encoded)
    reason = None
    if compute.precision not in SAFE_PRECISIONS:
        reason = processes.broadcast(
            precision_problem(model, task, base, encoded, compute, may_fall_back)
        )
    if reason is not None and not may_fall_back:
        raise processes.collective_error(
            ModelError(
                f"it does not compute in {compute.precision}: {reason}.",
                where=base.repo,
                hint="Leave train.precision at auto.",
            )
        )
    if reason is not None:
        compute = replace(compute, precision="fp32", why=f"not {compute.precision}: {reason}")
    return replace(
        compute, uniform=processes.broadcast(depends_on_padding(model, task, base, encoded))
    )


def precision_problem(
    model: Module,
    task: Task[Any],
    base: Base,
    encoded: EncodedDataset,
    compute: Compute,
    may_fall_back: bool,
) -> str | None:
    """Return why the model cannot be trained in the precision; None if it can.

    Weights are converted to fp64 if that is the precision.
    """
    known = (
        compat.fp16_overflow_reason(model) if may_fall_back and compute.precision == "fp16" else None
    )
    if known is not None:
        return known
    if compute.precision == "fp64":
        fp64.convert_model(model)
    try:
        with device.training_precision(compute), device.autocast(compute):
            is_finite = has_finite_loss(model, task, base, encoded)
    except Exception as error:  # whatever its code raises; in fp32 it did not
        if is_out_of_memory(error):
            raise
        return f"its code fails with {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return None if is_finite else f"its loss in {compute.precision} is not finite"


def has_finite_loss(model: Module, task: Task[Any], base: Base, encoded: EncodedDataset) -> bool:
    """Tell whether the loss of the longest example is finite, in the current precision."""
    item = int(encoded.sizes.argmax())
    with evaluation_mode(model):
        batch = make_batch(
            model, task, [encoded.examples[item]], base, [encoded.example_rng(0, 0, item)]
        )
        terms = loss_terms(task, task.forward(model, batch), batch)
    return all(math.isfinite(float(term.total)) for term in terms)


def depends_on_padding(model: Module, task: Task[Any], base: Base, encoded: EncodedDataset) -> bool:
    """Tell whether predictions change with a longer example in the batch, despite the mask.

    Examples of several lengths are compared: a sliding window only matters from some length on.
    False for generated answers to unlabelled rows, which are not compared.
    """
    items = spread_by_size(encoded, PADDING_EXAMPLES)
    if encoded.sizes[items[0]] == encoded.sizes[items[-1]]:
        return False

    def predict(chosen: list[int]) -> list[Prediction] | None:
        batch = make_batch(model, task, [encoded.examples[item] for item in chosen], base)
        if batch.targets is None and isinstance(task, GenerativeTask):
            return None
        return postprocess(task, task.forward(model, batch), batch, base)

    with evaluation_mode(model):
        padded = predict(items)
        return padded is not None and any(
            relative_difference(predict([item]), [prediction]) > PADDING_TOLERANCE
            for item, prediction in zip(items[:-1], padded, strict=False)
        )


@contextlib.contextmanager
def model_errors(task: Task[Any], base: Base) -> Iterator[None]:
    """Turn what the model's own code raises into a ModelError; errors of plugins pass through.

    Raises:
        ModelError: with the error of the model's code as its cause.
    """
    try:
        yield
    except Exception as error:
        if not is_raised_by_model(error) or is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split()).rstrip(".")[:300]
        raise ModelError(
            f"the code of '{choice.pretrained_config(base.config).model_type}' models fails on the examples of "
            f"'{task.name}': "
            f"{type(error).__name__}: {reason}.",
            where=base.repo,
            hint="It may need other inputs, or lengths of its own. Take another model; --debug "
            "shows where it fails.",
        ) from error


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether an error says that memory did not suffice, on any device."""
    return should_reduce_batch_size(error) or environment.memory_problem(error) is not None


def is_raised_by_model(error: Exception) -> bool:
    """Tell whether an error comes from transformers or below. Models call no plugins."""
    if type(error).__module__.partition(".")[0] == "hubtune":
        return False
    place = error.__traceback__
    while place is not None:
        if str(place.tb_frame.f_globals.get("__name__", "")).startswith(MODEL_CODE):
            return True
        place = place.tb_next
    return False

"""Conditions for caching a frozen backbone's outputs: from settings, and from a few examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hubtune.acceleration.backbone import Backbone, Refused, find_tensors, replace_tensors
from hubtune.acceleration.feature_files import Field, padded_width
from hubtune.contract import Batch, StepStrategy, Task
from hubtune.contract.validation import loss_terms
from hubtune.devices.sharding import BATCH_NORMS

if TYPE_CHECKING:
    from torch.nn import Module

    from hubtune.acceleration.interface import AccelerationContext

TRIED = 8
"""Number of examples that are tried first."""
EPOCHS = 3
"""Number of epochs whose random numbers are tried."""


def refusal(context: AccelerationContext, part: Any) -> str | None:
    """Return a reason from settings not to cache the outputs of a backbone; None without one."""
    if context.settings.kernels == "plain":
        return "train.kernels=plain"
    if context.processes > 1:
        return "there are several processes"
    if context.streamed:
        return "the data is streamed"
    model = context.model
    if not isinstance(part, torch.nn.Module) or part is model:
        return "the model has no backbone of its own"
    inside = {id(parameter) for parameter in part.parameters()}
    parameters = model.named_parameters(remove_duplicate=False)
    if any(name in context.trainable and id(parameter) in inside for name, parameter in parameters):
        return "the backbone is trained"
    has_norms = any(isinstance(inner, BATCH_NORMS) for inner in part.modules())
    if context.settings.batch_norm == "train" and has_norms:
        return "the backbone's batch norms follow the data"
    if isinstance(context.strategy, StepStrategy):
        return f"the strategy '{context.strategy.name}' may look at the backbone in every step"
    return None


def select_probes(context: AccelerationContext) -> list[int]:
    """Select a few training examples across all sizes, or of one size if batches are uniform."""
    order = context.train.sizes.argsort(kind="stable")
    if context.compute.uniform:
        order = order[context.train.sizes[order] == context.train.sizes[order[len(order) // 2]]]
    places = np.linspace(0, len(order) - 1, TRIED).round().astype(int)
    return sorted({int(order[place]) for place in places})


def refuse_random_inputs(context: AccelerationContext, items: Sequence[int]) -> None:
    """Refuse a task with random inputs, such as masked words and augmented images."""
    examples = [context.train.examples[item] for item in items]
    still = context.task.collate(examples, context.base, None).inputs
    for epoch in range(EPOCHS):
        rngs = [context.train.example_rng(context.settings.seed, epoch, item) for item in items]
        if not same(still, context.task.collate(examples, context.base, rngs).inputs):
            raise Refused("the task draws its inputs anew in every epoch")


def refuse_trainable_inputs(task: Task[Any], model: Module, backbone: Backbone,
                            batch: Batch) -> None:
    """Refuse trainable parameters before the backbone, such as prefixes."""
    with torch.enable_grad(), backbone.intercept(None) as seen:
        attempt(task.forward, model, batch)
    if any(value.requires_grad for output in seen for value in find_tensors(output).values()):
        raise Refused("what learns stands before the backbone")


def find_fields(task: Task[Any], model: Module, backbone: Backbone, output: Any,
                batch: Batch) -> list[Field]:
    """Return the fields of a backbone's output, each with whether the loss depends on it."""
    leaves = {name: value.detach().clone().requires_grad_()
              for name, value in find_tensors(output).items()}

    def gradients() -> tuple[Tensor | None, ...]:
        with torch.enable_grad(), backbone.intercept(lambda: replace_tensors(output, leaves)):
            terms = loss_terms(task, task.forward(model, batch), batch)
            total = torch.stack([term.total for term in terms]).sum()
            return torch.autograd.grad(total, list(leaves.values()), allow_unused=True)

    fields, width = [], padded_width(batch)
    for (name, value), gradient in zip(leaves.items(), attempt(gradients), strict=True):
        long = value.ndim > 2 and value.shape[1] == width
        shape = tuple(value.shape[1 + long:])
        fields.append(Field(name, gradient is not None, long, shape, value.dtype))
        if gradient is not None and len(value) != batch.size:
            raise Refused("what the backbone returns does not go by examples")
    used = [field for field in fields if field.used]
    if not used or any(field.dtype not in (torch.float32, torch.float64) for field in used):
        raise Refused("the head uses nothing of what the backbone returns that could be kept")
    return fields


def attempt(compute: Callable[..., Any], *given: Any) -> Any:
    """Call code of a plugin or a model, and turn any exception into Refused."""
    try:
        return compute(*given)
    except Refused:
        raise
    except Exception as error:
        raise Refused(f"trying it failed with {type(error).__name__}: {error}") from error


def same(one: Any, other: Any) -> bool:
    """Tell whether two nested inputs are equal."""
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return isinstance(one, Tensor) and isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(np.array_equal(one, other))

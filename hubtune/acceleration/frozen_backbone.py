"""Whether a backbone's outputs stay as they are while the head learns: what speaks against keeping them, and what is tried first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from hubtune.acceleration.backbone import Backbone, Refused, rebuilt, tensors_in
from hubtune.acceleration.feature_files import Field, width_of
from hubtune.contract import Batch, StepStrategy, Task
from hubtune.contract.validation import loss_terms

if TYPE_CHECKING:
    from torch.nn import Module

    from hubtune.acceleration.interface import AccelerationContext

TRIED = 8
"""Examples that are tried before anything is kept."""
EPOCHS = 3
"""Epochs whose draws they are given."""


def against(context: AccelerationContext, part: Any) -> str | None:
    """A reason from facts alone not to cache the outputs of a backbone, `part`; None where there is none."""
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
    if any(name in context.trainable and id(parameter) in inside for name, parameter in model.named_parameters(remove_duplicate=False)):
        return "the backbone is trained"
    if context.settings.batch_norm == "train" and any(isinstance(inner, _BatchNorm) for inner in part.modules()):
        return "the backbone's batch norms follow the data"
    if isinstance(context.strategy, StepStrategy):
        return f"the strategy '{context.strategy.name}' may look at the backbone in every step"
    return None


def tried(context: AccelerationContext) -> list[int]:
    """A few training examples of all sizes, or of one where only such meet."""
    order = context.train.sizes.argsort(kind="stable")
    if context.compute.uniform:
        order = order[context.train.sizes[order] == context.train.sizes[order[len(order) // 2]]]
    return sorted({int(order[place]) for place in np.linspace(0, len(order) - 1, TRIED).round().astype(int)})


def refuse_drawn(context: AccelerationContext, items: Sequence[int]) -> None:
    """Refuse a task whose inputs are drawn, such as masked words and turned images."""
    examples = [context.train.examples[item] for item in items]
    still = context.task.collate(examples, context.base, None).inputs
    for epoch in range(EPOCHS):
        rngs = [context.train.example_rng(context.settings.seed, epoch, item) for item in items]
        if not same(still, context.task.collate(examples, context.base, rngs).inputs):
            raise Refused("the task draws its inputs anew in every epoch")


def refuse_led(task: Task[Any], model: Module, backbone: Backbone, batch: Batch) -> None:
    """Refuse where what learns stands before the backbone, as learnt prefixes do: its outputs would change with them."""
    with torch.enable_grad(), backbone.answering(None) as seen:
        attempt(task.forward, model, batch)
    if any(value.requires_grad for output in seen for value in tensors_in(output).values()):
        raise Refused("what learns stands before the backbone")


def fields_of(task: Task[Any], model: Module, backbone: Backbone, output: Any, batch: Batch) -> list[Field]:
    """What the backbone returned for a batch, by field, each with whether the head uses it: whether the loss follows from it."""
    leaves = {name: value.detach().clone().requires_grad_() for name, value in tensors_in(output).items()}

    def gradients() -> tuple[Tensor | None, ...]:
        with torch.enable_grad(), backbone.answering(lambda: rebuilt(output, leaves)):
            terms = loss_terms(task, task.forward(model, batch), batch)
            total = torch.stack([term.total for term in terms]).sum()
            return torch.autograd.grad(total, list(leaves.values()), allow_unused=True)

    fields, width = [], width_of(batch)
    for (name, value), gradient in zip(leaves.items(), attempt(gradients), strict=True):
        long = value.ndim > 2 and value.shape[1] == width
        fields.append(Field(name, gradient is not None, long, tuple(value.shape[1 + long:]), value.dtype))
        if gradient is not None and len(value) != batch.size:
            raise Refused("what the backbone returns does not go by examples")
    used = [field for field in fields if field.used]
    if not used or any(field.dtype not in (torch.float32, torch.float64) for field in used):
        raise Refused("the head uses nothing of what the backbone returns that could be kept")
    return fields


def attempt(compute: Callable[..., Any], *given: Any) -> Any:
    """Call what a plugin or a model may raise anything in: then there are no features."""
    try:
        return compute(*given)
    except Refused:
        raise
    except Exception as error:
        raise Refused(f"trying it failed with {type(error).__name__}: {error}") from error


def same(one: Any, other: Any) -> bool:
    """Whether two inputs are equal, in whatever nesting."""
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return isinstance(one, Tensor) and isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(np.array_equal(one, other))

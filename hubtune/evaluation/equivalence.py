"""What a few training examples give, loss and gradient: to tell whether another way to compute gives the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hubtune.contract import Base, Task
from hubtune.contract.validation import loss_terms
from hubtune.evaluation import inference

if TYPE_CHECKING:
    from torch.nn import Module

    from hubtune.data.dataset import EncodedDataset


def spread(train: EncodedDataset, count: int) -> list[int]:
    """A few examples, from the shortest to the longest."""
    order = train.sizes.argsort(kind="stable")
    return sorted({int(order[place]) for place in np.linspace(0, len(order) - 1, count).astype(int)})


def losses(task: Task[Any], base: Base, train: EncodedDataset, model: Module, items: Sequence[int]) -> list[Tensor]:
    """The terms of the mean loss of examples in one batch, drawn as in training: some losses need what is drawn."""
    rngs = [train.example_rng(0, 0, item) for item in items]
    batch = inference.batch_for(model, task, [train.examples[item] for item in items], base, rngs)
    terms = loss_terms(task, task.forward(model, batch), batch)
    return [term.weight * term.total / (batch.counts[term.name] or 1.0) for term in terms]


def learnt(task: Task[Any], base: Base, train: EncodedDataset, model: Module, items: Sequence[int]) -> list[Tensor]:
    """The loss of examples without dropout, and its gradient by each weight that learns."""
    with inference.evaluating(model), torch.enable_grad():
        loss = torch.stack(losses(task, base, train, model, items)).sum()
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return [loss.detach(), *torch.autograd.grad(loss, learning, allow_unused=True, materialize_grads=True)]


def off(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """How far some numbers are from others that they should be, relative to these."""
    apart = sum(float((one - other).double().square().sum()) for one, other in zip(ours, theirs, strict=True)) ** 0.5
    found: float = apart / max(1e-6, sum(float(other.double().square().sum()) for other in theirs) ** 0.5)
    return found

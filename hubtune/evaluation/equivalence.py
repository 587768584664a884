"""Compare two ways to compute the same: losses of a few examples, differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from hubtune.contract import Base, Task
from hubtune.contract.validation import loss_terms
from hubtune.evaluation.batches import make_batch

if TYPE_CHECKING:
    from torch.nn import Module

    from hubtune.data.dataset import EncodedDataset


def spread_by_size(encoded: EncodedDataset, count: int) -> list[int]:
    """Choose up to `count` examples: the shortest, the longest and others evenly between."""
    order = encoded.sizes.argsort(kind="stable")
    places = np.linspace(0, len(order) - 1, min(count, len(order))).astype(int)
    return [int(item) for item in order[places]]


def mean_losses(
    task: Task[Any], base: Base, train: EncodedDataset, model: Module, items: Sequence[int]
) -> list[Tensor]:
    """Compute the mean loss terms of examples in one batch, with random numbers as in training."""
    rngs = [train.example_rng(0, 0, item) for item in items]
    batch = make_batch(model, task, [train.examples[item] for item in items], base, rngs)
    terms = loss_terms(task, task.forward(model, batch), batch)
    return [term.weight * term.total / (batch.counts[term.name] or 1.0) for term in terms]


def relative_difference(one: Any, other: Any) -> float:
    """Compare two JSON values: the largest difference of their numbers, relative to those above 1.

    Infinite where they differ in kind or in keys, or where only one of two numbers is NaN.
    """
    if isinstance(one, bool) or isinstance(other, bool) or not isinstance(one, int | float):
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            if one.keys() != other.keys():
                return math.inf
            return max((relative_difference(one[key], other[key]) for key in one), default=0.0)
        if isinstance(one, list | tuple) and isinstance(other, list | tuple):
            return (
                max(map(relative_difference, one, other), default=0.0)
                if len(one) == len(other)
                else math.inf
            )
        return 0.0 if one == other else math.inf
    if not isinstance(other, int | float):
        return math.inf
    if one == other or (math.isnan(one) and math.isnan(other)):
        return 0.0
    difference = abs(one - other) / max(1.0, abs(one))
    return math.inf if math.isnan(difference) else difference

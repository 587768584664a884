"""Shard a model's weights over the processes, after checking that its loss stays the same."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from hubtune.devices import processes, sharding
from hubtune.errors import TrainingError
from hubtune.evaluation import equivalence
from hubtune.evaluation.batches import evaluation_mode

if TYPE_CHECKING:
    from torch.nn import Module

    from hubtune.training.context import TrainingContext


def shard_module(context: TrainingContext, module: Module, still: Collection[Module],
                 learning: Callable[[], list[frozenset[str]]]) -> None:
    """Shard the weights.

    Args:
        still: batch norms whose running statistics are not updated.
        learning: returns the names of trainable parameters.

    Raises:
        TrainingError: the weights cannot be sharded.
    """
    reason, before = sharding.model_refusal(module, still), learning()
    if reason is None:
        loss = shortest_loss(context, module)
        try:
            sharding.shard(module, context.compute.device)
            found = shortest_loss(context, module)
            if not equivalence.relative_difference(loss, found) < 1e-3:
                reason = f"its loss would be {found} instead of {loss}"
        except Exception as error:  # a model may look at its weights in any way
            reason = f"it failed with {type(error).__name__}: {error}"
    if reason is None and learning() != before:
        reason = f"the strategy '{context.strategy.name}' keeps references to unsharded weights"
    if reason is not None:
        raise processes.collective_error(TrainingError(
            f"the weights cannot be sharded: {reason}.",
            hint="Train with whole weights in each process: --set train.fsdp=off"))


def shortest_loss(context: TrainingContext, module: Module) -> list[float]:
    """Return the loss of the shortest training example, without dropout."""
    with evaluation_mode(module):
        shortest = equivalence.spread_by_size(context.train, 1)
        found = equivalence.mean_losses(
            context.task, context.base, context.train, module, shortest)
    if any(map(sharding.is_dtensor, found)):
        raise ValueError("the model looks at weights beside the forward pass of their block")
    return [float(total) for total in found]

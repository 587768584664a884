"""Have a model's weights shared out over the processes, if it then still gives the loss that it gave."""

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


def share_out(context: TrainingContext, module: Module, still: Collection[Module], learning: Callable[[], list[frozenset[str]]]) -> None:
    """Share the weights out, or say why they cannot be. still: batch norms whose statistics stay; learning: names of what learns."""
    reason, before = sharding.model_refusal(module, still), learning()
    if reason is None:
        loss = loss_of_one(context, module)
        try:
            sharding.shard(module, context.compute.device)
            found = loss_of_one(context, module)
            if not equivalence.relative_difference(loss, found) < 1e-3:
                reason = f"its loss would be {found} instead of {loss}"
        except Exception as error:  # a model may look at its weights in any way
            reason = f"it failed with {type(error).__name__}: {error}"
    if reason is None and learning() != before:
        reason = f"the strategy '{context.strategy.name}' holds on to weights that are no longer the model's"
    if reason is not None:
        raise processes.collective_error(TrainingError(f"the weights cannot be sharded: {reason}.",
                                        hint="Let each process hold all of them: --set train.fsdp=off"))


def loss_of_one(context: TrainingContext, module: Module) -> list[float]:
    """The loss of the shortest training example, without dropout."""
    with evaluation_mode(module):
        shortest = equivalence.spread_by_size(context.train, 1)
        found = equivalence.mean_losses(
            context.task, context.base, context.train, module, shortest)
    if any(map(sharding.is_dtensor, found)):
        raise ValueError("the model looks at weights beside the forward pass of their block")
    return [float(total) for total in found]

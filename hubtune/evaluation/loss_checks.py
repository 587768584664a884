"""Check before step 0 that a task's loss is a sum: the loop divides it by the count of the step.

A loss that is already a mean would make a step depend on how it is cut into micro-batches, and
nothing would report it. The same example twice has twice the loss and the count of one, whatever
padding does to others; two forward passes tell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hubtune.contract import Base, ContrastiveTask, Task
from hubtune.contract.validation import loss_terms
from hubtune.data.dataset import EncodedDataset
from hubtune.errors import BrokenPlugin
from hubtune.evaluation.batches import evaluation_mode, make_batch

if TYPE_CHECKING:
    from torch.nn import Module

CANDIDATES = 100
"""Examples among which one is chosen."""
TOLERANCE = 0.1
"""A larger deviation from twice as much is no rounding in any precision: a mean is off by half."""
ATOL = 1e-6
"""A deviation that is negligible beside a loss of 0."""


def check_loss_is_sum(model: Module, task: Task[Any], base: Base, encoded: EncodedDataset) -> None:
    """Refuse a task whose loss or counts are not sums over examples. Contrastive losses are exempt.

    Raises:
        BrokenPlugin: with the values of an example alone and twice.
    """
    if isinstance(task, ContrastiveTask):
        return
    order = encoded.sizes[:CANDIDATES].argsort(kind="stable")
    item = int(order[len(order) // 10])  # a short one, but not the shortest, which may be odd
    alone, twice = (
        totals_and_counts(model, task, base, encoded, [item] * count) for count in (1, 2)
    )
    for name, value in alone.items():
        doubled = twice.get(name, 0.0)
        if abs(doubled - 2 * value) > TOLERANCE * abs(2 * value) + ATOL:
            raise BrokenPlugin(
                f"the loss of the task '{task.name}' is not a sum: {name} of an example is "
                f"{value:.4g}, and of the same example twice {doubled:.4g} instead of "
                f"{2 * value:.4g}. Steps would depend on how they are cut into micro-batches.",
                hint='In `loss`, sum over the targets (`reduction="sum"`), and let `Batch.counts` '
                "hold their number. "
                "Its author can check that with: hubtune plugins --check",
            )


def totals_and_counts(
    model: Module, task: Task[Any], base: Base, encoded: EncodedDataset, items: list[int]
) -> dict[str, float]:
    """Compute all that has to be a sum over examples: totals of loss terms, and counts."""
    with evaluation_mode(model):
        rngs = [encoded.example_rng(0, 0, item) for item in items]
        batch = make_batch(model, task, [encoded.examples[item] for item in items], base, rngs)
        sums = {f"`Batch.counts` ({name})": float(count) for name, count in batch.counts.items()}
        for term in loss_terms(task, task.forward(model, batch), batch):
            sums[f"the total ({term.name})"] = float(term.total)
    return sums

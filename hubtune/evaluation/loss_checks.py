"""Whether a task's loss is a sum, asked of one example before step 0: the engine divides it by the count of a whole step.

A loss that was averaged already makes steps that depend on how they are cut, and says nothing. An example beside itself has
twice the loss and the count that it has alone, whatever padding would do to another; two forward passes tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hubtune.contract import Base, ContrastiveTask, Task
from hubtune.contract.validation import loss_terms
from hubtune.data.dataset import EncodedDataset
from hubtune.errors import BrokenPlugin
from hubtune.evaluation import inference

if TYPE_CHECKING:
    from torch.nn import Module

SOME = 100
"""Examples among which one is chosen."""
FAR = 0.1
"""How far from twice as much is no rounding, in whatever format: a mean is at half of it."""
TINY = 1e-6
"""What is nothing, beside a loss of 0."""


def refuse_mean(model: Module, task: Task[Any], base: Base, encoded: EncodedDataset) -> None:
    """Refuse a task whose loss is no sum. A loss over the whole step, which is none and says so, is not asked."""
    if isinstance(task, ContrastiveTask):
        return
    order = encoded.sizes[:SOME].argsort(kind="stable")
    item = int(order[len(order) // 10])  # a small one, and not the oddest
    alone, twice = (figures(model, task, base, encoded, [item] * count) for count in (1, 2))
    for what, value in alone.items():
        if abs(twice.get(what, 0.0) - 2 * value) > FAR * abs(2 * value) + TINY:
            raise BrokenPlugin(
                f"the task '{task.name}' gives a loss that is no sum: {what} of an example is {value:.4g}, and of the same example "
                f"twice {twice.get(what, 0.0):.4g} instead of {2 * value:.4g}. Steps would depend on how they are cut.",
                hint="In `loss`, sum over the targets (`reduction=\"sum\"`), and let `Batch.counts` say how many there are. Its author "
                "can check that with: hubtune plugins --check",
            )


def figures(model: Module, task: Task[Any], base: Base, encoded: EncodedDataset, items: list[int]) -> Mapping[str, float]:
    """What has to be a sum over examples: the total and the count of every term, and the count that is said beforehand."""
    with inference.evaluating(model):
        batch = inference.batch_for(model, task, [encoded.examples[item] for item in items], base,
                                   [encoded.example_rng(0, 0, item) for item in items])
        said = {f"`Batch.counts` ({name})": float(count) for name, count in batch.counts.items()}
        for term in loss_terms(task, task.forward(model, batch), batch):
            said[f"the total ({term.name})"] = float(term.total)
    return said

"""Checks that a task's loss is a sum: the loss of a step is the same however it is cut, which the engine relies on."""

from __future__ import annotations

from typing import Any

from hubtune.contract import ContrastiveTask
from hubtune.evaluation.equivalence import relative_difference
from hubtune.evaluation.loss_checks import check_loss_is_sum
from hubtune.testing.bench import Bench, ensure, no_grad


def sums(bench: Bench, uniform: bool, atol: float = 1e-5) -> None:
    """The loss of a step is the same however it is cut, and a training asks nothing more. uniform: only examples of one size meet."""
    if isinstance(bench.task, ContrastiveTask):
        whole_loss(bench, bench.task, atol)
        return
    for items in [bench.order()] if not uniform else one_size(bench):
        if len(items) < 2:
            continue
        middle = len(items) // 2
        whole, first, second = (bench.losses(bench.model, part) for part in (items, items[:middle], items[middle:]))
        for name, term in whole.items():
            parts = float(first[name].total) + float(second[name].total)
            ensure(relative_difference(float(term.total), parts) <= rounding(bench, atol),
                   f"the loss {name!r} of {len(items)} examples is {float(term.total):.8g}, and {parts:.8g} in two halves.",
                   "`loss`: sum over targets, with `reduction=\"sum\"`, never a mean; padding must not count")
            counts = [bench.batch(part, rngs=True).counts[name] for part in (items, items[:middle], items[middle:])]
            ensure(relative_difference(counts[0], counts[1] + counts[2]) <= 1e-9,
                   "counts do not add up.", "`collate`: `Batch.counts`")
    check_loss_is_sum(bench.model, bench.task, bench.base, bench.annotated)


def whole_loss(bench: Bench, task: ContrastiveTask[Any], atol: float) -> None:
    """A loss over a whole step is the same from representations that were made in parts."""
    import torch

    items = bench.order()
    parts = [items, items[: len(items) // 2], items[len(items) // 2 :]]
    with no_grad():
        batches = [bench.batch(part, rngs=True) for part in parts]
        made = [task.embed(task.forward(bench.model, batch), batch) for batch in batches]
        whole = task.contrastive_loss(made[0], batches[:1])
        cut = task.contrastive_loss(torch.cat(made[1:]), batches[1:])
    ensure(len(made[0]) == len(items), f"{len(items)} examples have {len(made[0])} representations.", "`embed`")
    ensure(relative_difference(float(whole.total), float(cut.total)) <= rounding(bench, atol),
           f"the loss of a step is {float(whole.total):.8g}, and {float(cut.total):.8g} when it is cut in two.",
           "`contrastive_loss`: representations come in the order of the batches")


def rounding(bench: Bench, atol: float) -> float:
    """Return what rounding may do: `atol`, and ten times as much where the task does not compute in fp64."""
    return atol if bench.exact else 10 * atol


def one_size(bench: Bench, items: list[int] | None = None) -> list[list[int]]:
    """Examples by their size, the smallest first."""
    groups: dict[int, list[int]] = {}
    for item in bench.order() if items is None else items:
        groups.setdefault(int(bench.encoded.sizes[item]), []).append(item)
    return list(groups.values())

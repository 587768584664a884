"""Every row predicted exactly once, in order, on any number of devices; scored, with intervals.

Always in the format of the weights (fp32 unless the run is fp64): predictions and proofs are exact.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import gather_object
from numpy.typing import NDArray

from hubtune.contract import Base, Batch, GenerativeTask, Prediction, ReferenceTask, Rows, Task
from hubtune.contract.validation import checked, collated, loss_terms
from hubtune.data.batching import batches_of_rank, evaluation_batches
from hubtune.data.dataset import EncodedDataset
from hubtune.data.example_store import ExampleStore
from hubtune.data.row_batches import BatchedRows
from hubtune.devices import fp64, sharding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.nn import Module

LIMITS = {"cpu": 1024}
LIMIT = 8192
"""Padded tokens of an evaluation batch, on a CPU and elsewhere: what its layers hand on has to stay in a CPU's cache (MiniLM
on 85 tokens in bf16: 10.6 ms a row at 1024, 15 to 18 at 8192)."""
MOST = 64
"""Examples of an evaluation batch."""
ASKED = 4
"""Examples that tell whether padding matters, from the shortest to the longest."""


@dataclass(frozen=True)
class Answers:
    """A prediction for every row, in order, and the mean of every loss term (where there are labels)."""

    predictions: list[Prediction]
    losses: dict[str, float]


def moved(value: Any, device: Any, wide: bool) -> Any:
    """Tensors, in whatever nesting, on a device; numbers that are not whole in fp64 if `wide`."""
    if isinstance(value, torch.Tensor):
        return value.to(device, torch.float64 if wide and value.is_floating_point() else None)
    if isinstance(value, dict):
        return {key: moved(item, device, wide) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(moved(item, device, wide) for item in value)
    return value


def batch_for(model: Module, task: Task[Any], examples: Sequence[Any], base: Base, rngs: Any = None) -> Batch:
    """Examples as a batch where the model is, in fp64 if the model computes in it."""
    batch = collated(task, examples, base, rngs)
    weight = next(model.parameters())
    wide = weight.dtype == torch.float64
    return replace(batch, inputs=moved(batch.inputs, weight.device, wide), targets=moved(batch.targets, weight.device, wide))


def batches_of(model: Module, sizes: Sequence[int] | NDArray[np.int64], uniform: bool, most: int = MOST, limit: int = LIMIT) -> list[list[int]]:
    """Examples of these sizes in batches that suit where the model is, and that memory suffices for."""
    return evaluation_batches(sizes, min(limit, limit_on(next(model.parameters()).device.type)), most, uniform)


def limit_on(device: str) -> int:
    """Padded tokens of an evaluation batch on a kind of device."""
    return LIMITS.get(device, LIMIT)


@contextmanager
def evaluating(model: Module) -> Iterator[Module]:
    """The model without dropout and gradients; as it was afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    weight = next(model.parameters(), None)
    try:
        with torch.no_grad(), fp64.throughout() if weight is not None and weight.dtype == torch.float64 else nullcontext():
            yield model
    finally:
        for module, mode in modes.items():
            module.training = mode


def unknown(items: Sequence[int], batch: Batch) -> AbstractContextManager[None]:
    """Nothing is known of these examples beforehand: the model computes them."""
    return nullcontext()


def answer(
    model: Module, task: Task[Any], base: Base, rows: Rows, encoded: EncodedDataset, *,
    accelerator: Accelerator | PartialState | None = None, real: bool = True, losses: bool = False, uniform: bool = False,
    limit: int = LIMIT, advance: Callable[[int], None] = lambda examples: None,
    known: Callable[[Sequence[int], Batch], AbstractContextManager[None]] = unknown,
) -> Answers:
    """Predict all rows. `real`: also by the task's own `predict`, not only by the cheap `postprocess`; `losses`: also the loss;
    `uniform`: only examples of one size meet; `limit`: padded tokens of a batch; `known`: what is known of the examples of a batch.

    Batches are made by size, so that padding is little; the order of the answers is that of the rows.
    """
    real = real and isinstance(task, GenerativeTask)
    sharded = sharding.is_sharded(model)
    # Processes that each have a part of the weights take as many passes as the others; those of a task's own `predict` are all the same.
    together = None if sharded and real else accelerator
    world, rank = (together.num_processes, together.process_index) if together else (1, 0)
    batches = batches_of(model, encoded.sizes, uniform, limit=limit)
    parts: list[tuple[int, Prediction]] = []
    sums: list[tuple[str, float, float]] = []
    with evaluating(model):
        for _, items in batches_of_rank(batches, world, rank):
            if items or sharded:
                batch, outputs = passed(model, task, base, encoded, items or batches[0][:1], real, known)
            if items:
                parts += zip(items, said_of(model, task, base, batch, outputs, real), strict=True)
                if losses and batch.targets is not None:
                    sums += [(term.name, float(term.total), float(batch.counts[term.name])) for term in loss_terms(task, outputs, batch)]
                advance(len(items) * world)
    if world > 1:
        parts, sums = gather_object(parts), gather_object(sums)
    by_example = dict(parts)  # by id, so that a row counted on two devices still counts once
    return Answers([checked(task, "merge", task.merge([by_example[item] for item in items], row, base))
                    for row, items in zip(BatchedRows(rows), encoded.examples_by_row(), strict=True)], means_of(sums))


def passed(
    model: Module, task: Task[Any], base: Base, encoded: EncodedDataset, items: Sequence[int], real: bool,
    known: Callable[[Sequence[int], Batch], AbstractContextManager[None]],
) -> tuple[Batch, Any]:
    """A batch of examples and what one forward pass gives; None where nobody looks at it: there are no labels, and only the task's
    own `predict` is asked."""
    batch = batch_for(model, task, [encoded.examples[item] for item in items], base)
    with known(items, batch):
        return batch, None if batch.targets is None and real else task.forward(model, batch)


def said_of(model: Module, task: Task[Any], base: Base, batch: Batch, outputs: Any, real: bool) -> list[Prediction]:
    """An answer for every example of a batch: what `postprocess` says of the pass, and with `real` what `predict` says."""
    found = [{} for _ in range(batch.size)] if outputs is None else checked(task, "postprocess", task.postprocess(outputs, batch, base))
    if not (real and isinstance(task, GenerativeTask)):
        return found
    generated = checked(task, "predict", task.predict(model, batch, base))
    return [{**one, **more} for one, more in zip(found, generated, strict=True)]


def means_of(sums: Sequence[tuple[str, float, float]]) -> dict[str, float]:
    """The mean of every loss term, from its totals and counts."""
    totals: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for name, total, count in sums:
        totals[name][0] += total
        totals[name][1] += count
    return {name: total / count for name, (total, count) in totals.items() if count}


def finite(model: Module, task: Task[Any], base: Base, encoded: EncodedDataset) -> bool:
    """Whether the loss of the longest example is a number, in the format that is computed in."""
    item = int(encoded.sizes.argmax())
    with evaluating(model):
        batch = batch_for(model, task, [encoded.examples[item]], base, [encoded.example_rng(0, 0, item)])
        terms = loss_terms(task, task.forward(model, batch), batch)
    return all(math.isfinite(float(term.total)) for term in terms)


def annotated(model: Module, task: ReferenceTask[Any], base: Base, encoded: EncodedDataset, uniform: bool) -> EncodedDataset:
    """The examples with what the model as it is says of them: a frozen reference for what it will become."""
    store, order = ExampleStore(), np.zeros(len(encoded.examples), np.int64)
    with evaluating(model):
        for items in batches_of(model, encoded.sizes, uniform):
            batch = batch_for(model, task, [encoded.examples[item] for item in items], base)
            order[items] = np.arange(len(store), len(store) + len(items))
            store.extend(checked(task, "reference_outputs", task.reference_outputs(task.forward(model, batch), batch, base)))
    store.close()
    return encoded.with_reference(store, order)


def padding_matters(model: Module, task: Task[Any], base: Base, encoded: EncodedDataset) -> bool:
    """Whether examples' answers change when a longer one stands beside them, as in models that ignore the mask.

    Some of each length are asked: a window or a choice of few keys only matters from some length on. Rounding alone stays far
    below 1e-5 of an answer. A task that writes its answers to unlabelled rows is not asked.
    """
    order = encoded.sizes.argsort(kind="stable")
    asked = list(dict.fromkeys(order[np.linspace(0, len(order) - 1, ASKED).astype(int)].tolist()))
    if encoded.sizes[asked[0]] == encoded.sizes[asked[-1]]:
        return False

    def judged(items: list[int]) -> list[Prediction] | None:
        batch = batch_for(model, task, [encoded.examples[item] for item in items], base)
        if batch.targets is None and isinstance(task, GenerativeTask):
            return None
        return checked(task, "postprocess", task.postprocess(task.forward(model, batch), batch, base))

    with evaluating(model):
        together = judged(asked)
        return together is not None and any(gap(judged([item]), [one]) > 1e-5 for item, one in zip(asked[:-1], together, strict=False))


def gap(one: Any, other: Any) -> float:
    """The largest difference of two JSON values, relative to values above 1; infinite where they differ in kind, or where one
    is no number."""
    if isinstance(one, bool) or isinstance(other, bool) or not isinstance(one, int | float):
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            same = one.keys() == other.keys()
            return max((gap(one[key], other[key]) for key in one), default=0.0) if same else math.inf
        if isinstance(one, list | tuple) and isinstance(other, list | tuple):
            return max(map(gap, one, other), default=0.0) if len(one) == len(other) else math.inf
        return 0.0 if one == other else math.inf
    if not isinstance(other, int | float):
        return math.inf
    if one == other or (math.isnan(one) and math.isnan(other)):
        return 0.0
    found = abs(one - other) / max(1.0, abs(one))
    return math.inf if math.isnan(found) else found


def intervals(
    task: Task[Any], predictions: Sequence[Prediction], rows: Sequence[Any], base: Base, seed: int = 0
) -> dict[str, list[float]]:
    """95% intervals of every metric: percentiles over resampled rows (Efron and Tibshirani, 1993)."""
    draw = np.random.default_rng(seed)
    values: dict[str, list[float]] = defaultdict(list)
    for _ in range(task.bootstrap_samples):
        chosen = draw.integers(0, len(rows), len(rows)).tolist()
        for name, value in task.score([predictions[i] for i in chosen], [rows[i] for i in chosen], base).items():
            values[name].append(value)
    return {
        name: [round(float(np.nanpercentile(found, q)), 6) for q in (2.5, 97.5)] for name, found in values.items()
    }

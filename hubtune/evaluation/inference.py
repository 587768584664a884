"""Predict every row exactly once, in order, on any number of processes.

Computed in the format of the weights (fp32 unless the run is fp64), so predictions are exact.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from accelerate import Accelerator, PartialState
from accelerate.utils import gather_object

from hubtune.contract import Base, Batch, GenerativeTask, Prediction, ReferenceTask, Rows, Task
from hubtune.contract.validation import checked, loss_terms
from hubtune.data.batching import batches_of_rank
from hubtune.data.dataset import EncodedDataset
from hubtune.data.example_store import ExampleStore
from hubtune.data.row_batches import BatchedRows
from hubtune.devices import sharding
from hubtune.evaluation.batches import MAX_TOKENS, batch_indices, evaluation_mode, make_batch

if TYPE_CHECKING:
    from torch.nn import Module

LossSum = tuple[str, float, float]
"""A loss term of a batch: its name, its total and its count."""


@dataclass(frozen=True)
class Validation:
    """A prediction for every row, in order; of labelled rows, the mean of every loss term."""

    predictions: list[Prediction]
    losses: dict[str, float]


def no_context(items: Sequence[int], batch: Batch) -> AbstractContextManager[None]:
    """Enter nothing around a forward pass."""
    return nullcontext()


def ignore_progress(examples: int) -> None:
    """Report no progress."""


@dataclass(frozen=True)
class Predictor:
    """Predicts rows with a model for a task, in batches of similar sizes.

    uniform: batch only examples of one size, for a model whose outputs depend on padding.
    max_tokens: the most padded tokens of a batch. processes: the batches are shared among them, and
    each returns all predictions. on_progress: called with the number of examples since the last
    call. batch_context: entered around each forward pass, called with the items of its batch.
    """

    model: Module
    task: Task[Any]
    base: Base
    uniform: bool = False
    max_tokens: int = MAX_TOKENS
    processes: Accelerator | PartialState | None = None
    on_progress: Callable[[int], None] = ignore_progress
    batch_context: Callable[[Sequence[int], Batch], AbstractContextManager[None]] = no_context

    def predict(self, rows: Rows, encoded: EncodedDataset) -> list[Prediction]:
        """Predict all rows as a user sees them: a generative task generates."""
        return self._loop(rows, encoded, generate=isinstance(self.task, GenerativeTask)).predictions

    def validate(self, rows: Rows, encoded: EncodedDataset) -> Validation:
        """Predict all rows by forward passes, without generation; compute the mean losses."""
        return self._loop(rows, encoded, with_losses=True)

    def _loop(
        self,
        rows: Rows,
        encoded: EncodedDataset,
        *,
        generate: bool = False,
        with_losses: bool = False,
    ) -> Validation:
        """Predict in batches of similar sizes; predictions are in the order of the rows."""
        sharded = sharding.is_sharded(self.model)
        # Processes that hold parts of the weights make forward passes together, so each makes as
        # many as the others. Generation follows its rows, so each process generates for all rows.
        processes = None if sharded and generate else self.processes
        world, rank = (processes.num_processes, processes.process_index) if processes else (1, 0)
        batches = batch_indices(self.model, encoded.sizes, self.uniform, max_tokens=self.max_tokens)
        by_example: list[tuple[int, Prediction]] = []
        sums: list[LossSum] = []
        with evaluation_mode(self.model):
            for _, items in batches_of_rank(batches, world, rank):
                if not items and not sharded:
                    continue
                batch, outputs = self._forward(encoded, items or batches[0][:1], generate)
                if not items:
                    continue
                by_example += zip(items, self._predict_batch(batch, outputs, generate), strict=True)
                sums += loss_sums(self.task, outputs, batch) if with_losses else []
                self.on_progress(len(items) * world)
        if world > 1:
            by_example, sums = gather_object(by_example), gather_object(sums)
        predictions = self._merge(rows, encoded, dict(by_example))  # each example counts once
        return Validation(predictions, mean_losses(sums))

    def _forward(
        self, encoded: EncodedDataset, items: Sequence[int], generate: bool
    ) -> tuple[Batch, Any]:
        """Make a batch and its forward pass; outputs are None if only generated text is used."""
        examples = [encoded.examples[item] for item in items]
        batch = make_batch(self.model, self.task, examples, self.base)
        if generate and batch.targets is None:
            return batch, None
        with self.batch_context(items, batch):
            return batch, self.task.forward(self.model, batch)

    def _predict_batch(self, batch: Batch, outputs: Any, generate: bool) -> list[Prediction]:
        """Predict each example of a batch from its outputs, and by generation."""
        task = self.task
        found = (
            [{} for _ in range(batch.size)]
            if outputs is None
            else postprocess(task, outputs, batch, self.base)
        )
        if not (generate and isinstance(task, GenerativeTask)):
            return found
        generated = checked(task, "predict", task.predict(self.model, batch, self.base))
        return [{**scores, **answer} for scores, answer in zip(found, generated, strict=True)]

    def _merge(
        self, rows: Rows, encoded: EncodedDataset, by_example: Mapping[int, Prediction]
    ) -> list[Prediction]:
        """Merge the predictions of the examples of each row."""
        return [
            checked(
                self.task,
                "merge",
                self.task.merge([by_example[item] for item in items], row, self.base),
            )
            for row, items in zip(BatchedRows(rows), encoded.examples_by_row(), strict=True)
        ]


def postprocess(task: Task[Any], outputs: Any, batch: Batch, base: Base) -> list[Prediction]:
    """Turn the outputs of a forward pass into one prediction per example."""
    return checked(task, "postprocess", task.postprocess(outputs, batch, base))


def loss_sums(task: Task[Any], outputs: Any, batch: Batch) -> list[LossSum]:
    """Compute the total and the count of every loss term of a batch; none without labels."""
    if batch.targets is None:
        return []
    return [
        (term.name, float(term.total), float(batch.counts[term.name]))
        for term in loss_terms(task, outputs, batch)
    ]


def mean_losses(sums: Sequence[LossSum]) -> dict[str, float]:
    """Compute the mean of every loss term from its totals and counts."""
    totals: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for name, total, count in sums:
        totals[name][0] += total
        totals[name][1] += count
    return {name: total / count for name, (total, count) in totals.items() if count}


def add_reference_outputs(
    model: Module, task: ReferenceTask[Any], base: Base, encoded: EncodedDataset, uniform: bool
) -> EncodedDataset:
    """Add the untrained model's outputs to its examples: the frozen reference of a training."""
    store, order = ExampleStore(), np.zeros(len(encoded.examples), np.int64)
    with evaluation_mode(model):
        for items in batch_indices(model, encoded.sizes, uniform):
            batch = make_batch(model, task, [encoded.examples[item] for item in items], base)
            order[items] = np.arange(len(store), len(store) + len(items))
            outputs = task.reference_outputs(task.forward(model, batch), batch, base)
            store.extend(checked(task, "reference_outputs", outputs))
    store.close()
    return encoded.with_reference(store, order)

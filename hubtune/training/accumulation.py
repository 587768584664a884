"""Gradient accumulation: the gradient of a step, independent of micro-batches and devices."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hubtune.acceleration import recomputation
from hubtune.acceleration.interface import Accelerators, BatchRows
from hubtune.contract import Batch, ContrastiveTask, StepStrategy
from hubtune.contract.validation import checked, loss_terms
from hubtune.data.batching import batches_of_rank
from hubtune.devices import device, processes
from hubtune.errors import TrainingError
from hubtune.evaluation import model_checks
from hubtune.evaluation.batches import make_batch
from hubtune.models import compat
from hubtune.training.grad_cache import GradCache
from hubtune.training.steps import MicroBatcher

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor
    from torch.nn import Module

    from hubtune.training.context import TrainingContext


@dataclass(frozen=True)
class MicroBatch:
    """A micro-batch of this process.

    Attributes:
        index: its position in the step.
        weight: 0 if it is computed only so that all processes have equally many.
    """

    index: int
    weight: float
    items: list[int]
    batch: Batch


@dataclass(frozen=True)
class StepResult:
    """Mean loss terms of a step, its tokens (without and with padding), its micro-batches."""

    losses: dict[str, float]
    tokens: int
    padded_tokens: int
    micro_batches: int


class Accumulation:
    """Computes the gradient of a step's mean loss and the strategy's regularization.

    Args:
        accelerators: entered around each step and each forward pass.
    """

    def __init__(self, context: TrainingContext, accelerator: Accelerator, scaler: Any,
                 accelerators: Accelerators | None = None) -> None:
        self.context, self.accelerator, self.scaler = context, accelerator, scaler
        self.accelerators = accelerators or Accelerators()
        self.batcher = MicroBatcher(context)
        self.grad_cache: GradCache | None = None
        if isinstance(context.task, ContrastiveTask):
            self.grad_cache = GradCache(self, context.task)
        if recomputation.is_enabled(context.model):
            # The strategy asked for it: dropout must be that of the forward pass.
            recomputation.enable(context.model)

    def compute(self, model: Module, optimizer: Any, step: int, epoch: int,
                items: Sequence[int]) -> StepResult:
        """Run the forward and backward passes of a step; the gradient is in the parameters.

        If memory runs out, the step is repeated with smaller micro-batches: weights have not
        changed, and random numbers depend on step and row.
        """
        while True:
            micro_batches = self.batcher.divide(items)
            try:
                losses = self.gradient(model, step, epoch, micro_batches)
                break
            except Exception as error:
                if not self.accelerators.recover(error, optimizer):
                    self.reduce_memory(model, micro_batches, error)
            optimizer.zero_grad(set_to_none=True)
        batcher = self.batcher
        padded = sum(map(batcher.padded_tokens, micro_batches))
        return StepResult(losses, batcher.tokens(items), padded, len(micro_batches))

    def reduce_memory(self, model: Module, micro_batches: list[list[int]],
                      error: Exception) -> None:
        """Use smaller micro-batches from now on; with one example each, recompute activations."""
        if not model_checks.is_out_of_memory(error) or self.context.shard:
            raise error
        if self.batcher.halve(micro_batches):
            return
        if self.context.may_recompute and self.recompute(model):
            return
        longest = max(map(self.batcher.padded_tokens, micro_batches))
        raise TrainingError(
            f"the memory does not suffice for one example of {longest} {self.context.task.unit}.",
            hint="Truncate the texts with --set train.max_length=N, "
            "or train fewer weights: --strategy lora",
        ) from error

    def recompute(self, model: Module) -> bool:
        """Recompute activations in the backward pass from now on; False if the model cannot."""
        if not recomputation.enable(model):
            return False
        self.context.compute = replace(self.context.compute, recompute=True)
        return True

    def gradient(self, model: Module, step: int, epoch: int,
                 micro_batches: list[list[int]]) -> dict[str, float]:
        """Add the step's gradient to the parameters; return the mean of every loss term."""
        precision = device.training_precision(self.context.compute)
        with precision, compat.without_cache(model), self.accelerators.step():
            return self.accumulate(model, step, epoch, micro_batches)

    def accumulate(self, model: Module, step: int, epoch: int,
                   micro_batches: list[list[int]]) -> dict[str, float]:
        """Sum the counts over all micro-batches and devices, then add each micro-batch's share."""
        parts = self.make_micro_batches(model, epoch, micro_batches)
        counts: dict[str, float] = defaultdict(float)
        for part in parts:
            for name, count in part.batch.counts.items():
                counts[name] += part.weight * count
        counts = self.sum_over_devices(counts)
        several = len(parts) > 1 or self.accelerator.num_processes > 1
        cached = None
        if self.grad_cache and several:
            cached = self.grad_cache.compute(model, step, parts)
        means: dict[str, float] = defaultdict(float)

        def backward(position: int) -> Callable[[], None]:
            part = parts[position]
            if cached is None:
                objective = self.objective_of(model, step, part, counts, len(micro_batches), means)
            else:
                objective = cached[1][position]()
            if position == len(parts) - 1:
                objective = objective + self.regularization(model, means)
            # DDP averages gradients over devices; this undoes it.
            scaled: Tensor = self.scaler.scale(objective * self.accelerator.num_processes)
            return scaled.backward

        with self.agree_on_memory(), self.accelerator.no_sync(model):
            for position in range(len(parts) - 1):
                backward(position)()
            last = backward(len(parts) - 1)
        # Processes wait for each other in it: agreed on before.
        with self.accelerator.trigger_sync_in_backward(model):
            last()
        if cached is not None:
            means["loss"] += cached[0] / self.accelerator.num_processes  # each has found the same
        return self.sum_over_devices(means)

    @contextlib.contextmanager
    def agree_on_memory(self) -> Iterator[None]:
        """Repeat the step in all processes if one of them runs out of memory in this block.

        Not with sharded weights, where processes wait for each other in every block.
        """
        alone, failed = self.accelerator.num_processes == 1 or self.context.shard, None
        try:
            yield
        except Exception as error:
            if alone or not model_checks.is_out_of_memory(error):
                raise
            failed = error
        if not alone and processes.any_process(failed is not None)[0]:
            raise failed or RuntimeError("another process is out of memory.")

    def make_micro_batches(self, model: Module, epoch: int,
                           micro_batches: list[list[int]]) -> list[MicroBatch]:
        """Collate the micro-batches of this device; all devices have equally many."""
        context, accelerator = self.context, self.accelerator
        found = []
        count, rank = accelerator.num_processes, accelerator.process_index
        for index, items in batches_of_rank(micro_batches, count, rank):
            weight = 1.0 if items else 0.0
            items = items or micro_batches[0][:1]
            rngs = [context.train.example_rng(context.settings.seed, epoch, item) for item in items]
            examples = [context.train.examples[item] for item in items]
            batch = make_batch(model, context.task, examples, context.base, rngs)
            found.append(MicroBatch(index, weight, items, batch))
        return found

    def sum_over_devices(self, values: dict[str, float]) -> dict[str, float]:
        """Sum values over all devices."""
        if self.accelerator.num_processes == 1:
            return dict(values)
        names = sorted(values)
        tensor = torch.tensor([values[name] for name in names], dtype=torch.float64)
        tensor = tensor.to(self.accelerator.device)
        return dict(zip(names, self.accelerator.reduce(tensor).tolist(), strict=True))

    @contextlib.contextmanager
    def forward_context(self, step: int, part: MicroBatch) -> Iterator[None]:
        """Enter the context of a micro-batch's forward pass.

        Models that use random numbers besides dropout find generators seeded by step and
        micro-batch: a resumed step repeats them, other micro-batches do not. NumPy's too:
        transformers masks spectrograms with it.
        """
        seed = ((self.context.settings.seed * 1_000_003 + step) * 4_099 + part.index) % 2**63
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        rows = BatchRows("train", part.items, part.batch, step, is_training=True)
        notes = self.annotate_errors(step, part.batch)
        with self.accelerators.batch(rows), device.autocast(self.context.compute), notes:
            yield

    def objective_of(self, model: Module, step: int, part: MicroBatch, counts: dict[str, float],
                     micro_batches: int, means: dict[str, float]) -> Any:
        """Return a micro-batch's share of the step's mean loss."""
        with self.forward_context(step, part):
            outputs = self.context.task.forward(model, part.batch)
            terms = loss_terms(self.context.task, outputs, part.batch)
        objective: Any = 0.0
        for term in terms:
            share_of = term.total / (counts[term.name] or 1.0)
            objective = objective + term.weight * part.weight * share_of
            means[term.name] += part.weight * float(share_of.detach())
        return objective

    def regularization(self, model: Module, means: dict[str, float]) -> Any:
        """Return the strategy's regularization, once per step."""
        strategy = self.context.strategy
        if not isinstance(strategy, StepStrategy):
            return 0.0
        module = self.accelerator.unwrap_model(model)
        found = checked(strategy, "regularization", strategy.regularization(module))
        if found is None:
            return 0.0
        share_of = found / self.accelerator.num_processes
        means["penalty"] += float(share_of.detach())
        return share_of

    @contextlib.contextmanager
    def annotate_errors(self, step: int, batch: Batch) -> Any:
        """Add step, plugins and shapes to exceptions of a plugin or a model."""
        try:
            with model_checks.model_errors(self.context.task, self.context.base):
                yield
        except Exception as error:
            context = self.context
            shapes = {name: tuple(getattr(value, "shape", ()))
                      for name, value in batch.inputs.items()}
            error.add_note(
                f"in step {step}, task '{context.task.name}', strategy '{context.strategy.name}', "
                f"model type '{context.base.config.model_type}', inputs {shapes}")
            raise

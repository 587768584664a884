"""The gradient of one step, the same however the step is cut into micro-batches and shared among devices."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import gather_object

from hubtune.acceleration import recomputation
from hubtune.acceleration.interface import Accelerators, BatchRows
from hubtune.contract import Batch, ContrastiveTask, StepStrategy
from hubtune.contract.validation import checked, loss_terms
from hubtune.data.batching import batches_of_rank
from hubtune.devices import device, processes
from hubtune.errors import TrainingError
from hubtune.evaluation import model_checks
from hubtune.evaluation.batches import make_batch, to_device
from hubtune.models import compat
from hubtune.training.steps import StepCutter

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor
    from torch.nn import Module

    from hubtune.training.context import TrainingContext


@dataclass(frozen=True)
class MicroBatch:
    """A micro-batch of this process. index: its place in the step; weight 0: computed only so that all processes have as many."""

    index: int
    weight: float
    items: list[int]
    batch: Batch


@dataclass(frozen=True)
class StepResult:
    """The means of a step's loss terms, its tokens without and with padding, and its number of micro-batches."""

    losses: dict[str, float]
    tokens: int
    padded_tokens: int
    micro_batches: int


class Accumulation:
    """Computes the gradient of a step's mean loss, plus the strategy's regularization, from micro-batches.

    accelerators: entered around each step and each forward pass.
    """

    def __init__(
        self, context: TrainingContext, accelerator: Accelerator, scaler: Any, accelerators: Accelerators | None = None
    ) -> None:
        self.context, self.accelerator, self.scaler = context, accelerator, scaler
        self.accelerators = accelerators or Accelerators()
        self.cutter = StepCutter(context)
        self.contrastive = context.task if isinstance(context.task, ContrastiveTask) else None
        if recomputation.is_enabled(context.model):
            recomputation.enable(context.model)  # the strategy asked for it: dropout must be that of the forward pass

    def compute(self, model: Module, optimizer: Any, step: int, epoch: int, items: Sequence[int]) -> StepResult:
        """Forward and backward passes of a step with these examples; the gradient is in the parameters.

        Where memory does not suffice, the step begins again, cut smaller: weights have not moved, and what is drawn
        follows from step and row.
        """
        while True:
            cuts = self.cutter.cut(items)
            try:
                losses = self.gradient(model, step, epoch, cuts)
                break
            except Exception as error:
                if not self.accelerators.recover(error, optimizer):
                    self.reduce_memory(model, cuts, error)
            optimizer.zero_grad(set_to_none=True)
        cutter = self.cutter
        return StepResult(losses, cutter.tokens(items), sum(map(cutter.padded_tokens, cuts)), len(cuts))

    def reduce_memory(self, model: Module, cuts: list[list[int]], error: Exception) -> None:
        """Cut steps smaller from now on; where a micro-batch holds one example, recompute activations in the backward pass."""
        if not model_checks.is_out_of_memory(error) or self.context.shard:
            raise error
        if self.cutter.halve(cuts) or (self.context.may_recompute and self.recompute(model)):
            return
        raise TrainingError(
            f"the memory does not suffice for one example of {max(map(self.cutter.padded_tokens, cuts))} {self.context.task.unit}.",
            hint="Cut the texts with --set train.max_length=N, or train fewer weights: --strategy lora",
        ) from error

    def recompute(self, model: Module) -> bool:
        """Recompute activations in the backward pass from now on; False where the model cannot."""
        if not recomputation.enable(model):
            return False
        self.context.compute = replace(self.context.compute, recompute=True)
        return True

    def gradient(self, model: Module, step: int, epoch: int, cuts: list[list[int]]) -> dict[str, float]:
        """Add the step's gradient to the parameters; returns the mean of every loss term."""
        with device.training_precision(self.context.compute), compat.without_cache(model), self.accelerators.step():
            return self.over_micro_batches(model, step, epoch, cuts)

    def over_micro_batches(self, model: Module, step: int, epoch: int, cuts: list[list[int]]) -> dict[str, float]:
        """Denominators come first, over all micro-batches and devices; each micro-batch then adds its share."""
        parts = self.parts(model, epoch, cuts)
        counts: dict[str, float] = defaultdict(float)
        for part in parts:
            for name, count in part.batch.counts.items():
                counts[name] += part.weight * count
        counts = self.over_devices(counts)
        cut_up = len(parts) > 1 or self.accelerator.num_processes > 1
        caches = self.cached(model, step, parts, self.contrastive) if self.contrastive and cut_up else None
        means: dict[str, float] = defaultdict(float)

        def backward(position: int) -> Callable[[], None]:
            part = parts[position]
            if caches is None or self.contrastive is None:
                objective = self.mean_of(model, step, part, counts, len(cuts), means)
            else:
                objective = self.through_cache(model, step, part, caches[1][position], self.contrastive)
            if position == len(parts) - 1:
                objective = objective + self.penalty(model, means)
            # DDP averages gradients over devices; this undoes it.
            scaled: Tensor = self.scaler.scale(objective * self.accelerator.num_processes)
            return scaled.backward

        with self.agreeing(), self.accelerator.no_sync(model):
            for position in range(len(parts) - 1):
                backward(position)()
            last = backward(len(parts) - 1)
        with self.accelerator.trigger_sync_in_backward(model):  # processes wait for each other in it: agreed on before
            last()
        if caches is not None:
            means["loss"] += caches[0] / self.accelerator.num_processes  # each has found the same
        return self.over_devices(means)

    @contextlib.contextmanager
    def agreeing(self) -> Iterator[None]:
        """Around what a process computes by itself: where one has not enough memory, all of them say so and begin again.

        Parts of the weights are no such case: processes wait for each other in every block.
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

    def parts(self, model: Module, epoch: int, cuts: list[list[int]]) -> list[MicroBatch]:
        """The micro-batches that this device computes. Every device has as many as the others."""
        context, accelerator = self.context, self.accelerator
        found = []
        for index, items in batches_of_rank(cuts, accelerator.num_processes, accelerator.process_index):
            weight = 1.0 if items else 0.0
            items = items or cuts[0][:1]
            rngs = [context.train.example_rng(context.settings.seed, epoch, item) for item in items]
            examples = [context.train.examples[item] for item in items]
            batch = make_batch(model, context.task, examples, context.base, rngs)
            found.append(MicroBatch(index, weight, items, batch))
        return found

    def over_devices(self, values: dict[str, float]) -> dict[str, float]:
        """Sums over all devices."""
        if self.accelerator.num_processes == 1:
            return dict(values)
        names = sorted(values)
        tensor = torch.tensor([values[name] for name in names], dtype=torch.float64).to(self.accelerator.device)
        return dict(zip(names, self.accelerator.reduce(tensor).tolist(), strict=True))

    @contextlib.contextmanager
    def forward_context(self, step: int, part: MicroBatch) -> Iterator[None]:
        """Entered around the forward pass of a micro-batch.

        A model that draws random numbers beside dropout finds generators seeded by the step and the micro-batch: a
        resumed step draws the same, another cut does not. NumPy's too: transformers masks spectrograms with it.
        """
        seed = ((self.context.settings.seed * 1_000_003 + step) * 4_099 + part.index) % 2**63
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        rows = BatchRows("train", part.items, part.batch, step, is_training=True)
        with self.accelerators.batch(rows), device.autocast(self.context.compute), self.placed(step, part.batch):
            yield

    def mean_of(
        self, model: Module, step: int, part: MicroBatch, counts: dict[str, float], cuts: int, means: dict[str, float]
    ) -> Any:
        """A micro-batch's share of the step's mean loss."""
        with self.forward_context(step, part):
            outputs = self.context.task.forward(model, part.batch)
            terms = loss_terms(self.context.task, outputs, part.batch)
        objective: Any = 0.0
        for term in terms:
            share_of = term.total / (counts[term.name] or 1.0)
            objective = objective + term.weight * part.weight * share_of
            means[term.name] += part.weight * float(share_of.detach())
        return objective

    def represented(self, model: Module, step: int, part: MicroBatch, task: ContrastiveTask[Any]) -> Tensor:
        """What the loss over the whole step compares, of one micro-batch."""
        with self.forward_context(step, part):
            return checked(task, "embed", task.embed(task.forward(model, part.batch), part.batch))

    def cached(self, model: Module, step: int, parts: list[MicroBatch], task: ContrastiveTask[Any]) -> tuple[float, list[Tensor]]:
        """The mean loss over the whole step, and its gradient by each micro-batch's representations (GradCache)."""
        with self.agreeing(), torch.no_grad():
            own = [(part.index, self.represented(model, step, part, task).detach(), part.batch) for part in parts]
        every = self.everywhere([found for found, part in zip(own, parts, strict=True) if part.weight])
        together = torch.cat([found for _, found, _ in every]).requires_grad_()
        with device.autocast(self.context.compute):
            loss = checked(task, "contrastive_loss", task.contrastive_loss(together, [batch for _, _, batch in every]))
        mean = loss.weight * loss.total / (sum(batch.counts[loss.name] for _, _, batch in every) or 1.0)
        (gradient,) = torch.autograd.grad(mean, together)
        of = dict(zip([index for index, _, _ in every], torch.split(gradient, [len(found) for _, found, _ in every]), strict=True))
        return float(mean.detach()), [of[index] if index in of else torch.zeros_like(found) for index, found, _ in own]

    def everywhere(self, own: list[tuple[int, Tensor, Batch]]) -> list[tuple[int, Tensor, Batch]]:
        """The representations and batches of all devices, in the order of the step."""
        if self.accelerator.num_processes == 1:
            return own
        place = self.accelerator.device
        every = gather_object([
            (index, found.cpu(), replace(batch, inputs={}, targets=to_device(batch.targets, "cpu")))
            for index, found, batch in own
        ])
        return [(index, found.to(place), replace(batch, targets=to_device(batch.targets, place)))
                for index, found, batch in sorted(every, key=lambda entry: int(entry[0]))]

    def through_cache(self, model: Module, step: int, part: MicroBatch, gradient: Tensor, task: ContrastiveTask[Any]) -> Any:
        """A scalar whose gradient is the cached one, carried on into the weights."""
        return (self.represented(model, step, part, task) * gradient).sum()

    def penalty(self, model: Module, means: dict[str, float]) -> Any:
        """The strategy's own term, once a step."""
        strategy = self.context.strategy
        if not isinstance(strategy, StepStrategy):
            return 0.0
        found = checked(strategy, "regularization", strategy.regularization(self.accelerator.unwrap_model(model)))
        if found is None:
            return 0.0
        share_of = found / self.accelerator.num_processes
        means["penalty"] += float(share_of.detach())
        return share_of

    @contextlib.contextmanager
    def placed(self, step: int, batch: Batch) -> Any:
        """What a plugin or a model raises says where it happened."""
        try:
            with model_checks.model_errors(self.context.task, self.context.base):
                yield
        except Exception as error:
            context = self.context
            shapes = {name: tuple(getattr(value, "shape", ())) for name, value in batch.inputs.items()}
            error.add_note(f"in step {step}, task '{context.task.name}', strategy '{context.strategy.name}', "
                           f"model type '{context.base.config.model_type}', inputs {shapes}")
            raise

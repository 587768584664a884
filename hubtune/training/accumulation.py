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

from hubtune.acceleration import kernels
from hubtune.acceleration.row_axes import RowDropout
from hubtune.contract import Batch, Loss, Task
from hubtune.data.batching import batches_of_rank
from hubtune.devices import device, processes
from hubtune.evaluation import inference, model_checks
from hubtune.models import compat

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor
    from torch.nn import Module

    from hubtune.training.context import TrainingContext


@dataclass(frozen=True)
class Part:
    """A micro-batch of this device. index: its place in the step; weight 0: only here so that all devices have as many."""

    index: int
    weight: float
    items: list[int]
    batch: Batch


class Gradient:
    """Computes the gradient of a step's mean loss, plus the strategy's own penalty.

    known: what is known of examples beforehand; blocks: how the model's blocks compute during a step.
    """

    def __init__(self, context: TrainingContext, accelerator: Accelerator, scaler: Any, dropout: RowDropout | None = None) -> None:
        self.context, self.accelerator, self.scaler = context, accelerator, scaler
        self.dropout = dropout or RowDropout()
        self.known: Callable[[Sequence[int], Batch], contextlib.AbstractContextManager[None]] = inference.unknown
        self.blocks: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
        self.whole = type(context.task).contrastive_loss is not Task.contrastive_loss
        if any(getattr(part, "gradient_checkpointing", False) for part in context.model.modules()):
            recompute(context.model)  # whoever asked for it: what is computed again has to drop the same
        self.kernels = kernels.usable(context.compute.kernels, compiled=context.compute.compiled, sharded=context.shard)

    def of_step(self, model: Module, step: int, epoch: int, cuts: list[list[int]]) -> dict[str, float]:
        """Add the step's gradient to the parameters; returns the mean of every term."""
        with device.learning(self.context.compute), compat.without_cache(model), self.blocks():
            return self.over_micro_batches(model, step, epoch, cuts)

    def over_micro_batches(self, model: Module, step: int, epoch: int, cuts: list[list[int]]) -> dict[str, float]:
        """Denominators come first, over all micro-batches and devices; each micro-batch then adds its share."""
        parts = self.parts(model, epoch, cuts)
        counts: dict[str, float] = defaultdict(float)
        for part in parts:
            for name, count in self.context.task.count(part.batch).items():
                counts[name] += part.weight * count
        counts = self.over_devices(counts)
        cut_up = len(parts) > 1 or self.accelerator.num_processes > 1
        caches = self.cached(model, step, parts) if self.whole and cut_up else None
        means: dict[str, float] = defaultdict(float)

        def backward(position: int) -> Callable[[], None]:
            part = parts[position]
            if caches is None:
                objective = self.mean_of(model, step, part, counts, len(cuts), means)
            else:
                objective = self.through_cache(model, step, part, caches[1][position])
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
            if alone or not model_checks.out_of_memory(error):
                raise
            failed = error
        if not alone and processes.any_of(failed is not None)[0]:
            raise failed or RuntimeError("another process is out of memory.")

    def parts(self, model: Module, epoch: int, cuts: list[list[int]]) -> list[Part]:
        """The micro-batches that this device computes. Every device has as many as the others."""
        context, accelerator = self.context, self.accelerator
        found = []
        for index, items in batches_of_rank(cuts, accelerator.num_processes, accelerator.process_index):
            weight = 1.0 if items else 0.0
            items = items or cuts[0][:1]
            rngs = [context.train.example_rng(context.settings.seed, epoch, item) for item in items]
            examples = [context.train.examples[item] for item in items]
            batch = inference.batch_for(model, context.task, examples, context.base, rngs)
            found.append(Part(index, weight, items, batch))
        return found

    def over_devices(self, values: dict[str, float]) -> dict[str, float]:
        """Sums over all devices."""
        if self.accelerator.num_processes == 1:
            return dict(values)
        names = sorted(values)
        tensor = torch.tensor([values[name] for name in names], dtype=torch.float64).to(self.accelerator.device)
        return dict(zip(names, self.accelerator.reduce(tensor).tolist(), strict=True))

    @contextlib.contextmanager
    def drawing(self, model: Module, step: int, part: Part) -> Iterator[None]:
        """Compute a micro-batch with the dropout of its rows.

        All else that a model may draw comes from generators seeded by the step and the micro-batch: a resumed step draws
        what it drew before, and another cut draws something else. NumPy's too: transformers masks spectrograms with it.
        """
        seed = ((self.context.settings.seed * 1_000_003 + step) * 4_099 + part.index) % 2**63
        compiled = self.context.compute.compiled  # compiled blocks draw for themselves
        draws = None if compiled else self.dropout.of(self.context, model, step, part.items, part.batch)
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        with kernels.applied(model, self.kernels, draws), device.autocast(self.context.compute), self.placed(step, part.batch), self.known(part.items, part.batch):
            yield

    def mean_of(
        self, model: Module, step: int, part: Part, counts: dict[str, float], cuts: int, means: dict[str, float]
    ) -> Any:
        """A micro-batch's share of the step's mean loss."""
        with self.drawing(model, step, part):
            outputs = self.context.task.forward(model, part.batch)
            terms: list[Loss] = inference.as_terms(self.context.task.loss(outputs, part.batch))
        objective: Any = 0.0
        for term in terms:
            share_of = term.total / (counts.get(term.name, 0.0) or term.count * cuts or 1.0)
            objective = objective + term.weight * part.weight * share_of
            means[term.name] += part.weight * float(share_of.detach())
        return objective

    def represented(self, model: Module, step: int, part: Part) -> Tensor:
        """What the loss over the whole step compares, of one micro-batch."""
        with self.drawing(model, step, part):
            return self.context.task.embed(self.context.task.forward(model, part.batch), part.batch)

    def cached(self, model: Module, step: int, parts: list[Part]) -> tuple[float, list[Tensor]]:
        """The mean loss over the whole step, and its gradient by each micro-batch's representations (GradCache)."""
        with self.agreeing(), torch.no_grad():
            own = [(part.index, self.represented(model, step, part).detach(), part.batch) for part in parts]
        every = self.everywhere([found for found, part in zip(own, parts, strict=True) if part.weight])
        together = torch.cat([found for _, found, _ in every]).requires_grad_()
        with device.autocast(self.context.compute):
            loss = self.context.task.contrastive_loss(together, [batch for _, _, batch in every])
        mean = loss.weight * loss.total / (loss.count or 1.0)
        (gradient,) = torch.autograd.grad(mean, together)
        of = dict(zip([index for index, _, _ in every], torch.split(gradient, [len(found) for _, found, _ in every]), strict=True))
        return float(mean.detach()), [of[index] if index in of else torch.zeros_like(found) for index, found, _ in own]

    def everywhere(self, own: list[tuple[int, Tensor, Batch]]) -> list[tuple[int, Tensor, Batch]]:
        """The representations and batches of all devices, in the order of the step."""
        if self.accelerator.num_processes == 1:
            return own
        place = self.accelerator.device
        every = gather_object([(index, found.cpu(), Batch({}, inference.moved(batch.targets, "cpu", False), batch.size))
                               for index, found, batch in own])
        return [(index, found.to(place), replace(batch, targets=inference.moved(batch.targets, place, False)))
                for index, found, batch in sorted(every, key=lambda entry: int(entry[0]))]

    def through_cache(self, model: Module, step: int, part: Part, gradient: Tensor) -> Any:
        """A scalar whose gradient is the cached one, carried on into the weights."""
        return (self.represented(model, step, part) * gradient).sum()

    def penalty(self, model: Module, means: dict[str, float]) -> Any:
        """The strategy's own term, once a step."""
        found = self.context.strategy.regularization(self.accelerator.unwrap_model(model))
        if found is None:
            return 0.0
        share_of = found / self.accelerator.num_processes
        means["penalty"] += float(share_of.detach())
        return share_of

    @contextlib.contextmanager
    def placed(self, step: int, batch: Batch) -> Any:
        """What a plugin or a model raises says where it happened."""
        try:
            with model_checks.naming(self.context.task, self.context.base):
                yield
        except Exception as error:
            context = self.context
            shapes = {name: tuple(getattr(value, "shape", ())) for name, value in batch.inputs.items()}
            error.add_note(f"in step {step}, task '{context.task.name}', strategy '{context.strategy.name}', "
                           f"model type '{context.base.config.model_type}', inputs {shapes}")
            raise


def recompute(model: Module) -> bool:
    """Have the model compute its activations again in the backward pass, which saves most of their memory; whether it can."""
    for part in model.modules():
        if getattr(part, "supports_gradient_checkpointing", False):
            # transformers 5.23 renamed it, and warns of the old name.
            enable: Any = getattr(part, "activation_checkpointing_enable", None) or part.gradient_checkpointing_enable
            enable({"use_reentrant": False, "context_fn": kernels.recomputation})
            return True
    return False

"""GradCache (Gao et al., arXiv:2101.06983): a loss over a whole step, with micro-batches.

A contrastive loss compares all rows of a step, so it is no sum over micro-batches. All embeddings are
computed first; then the loss gives their gradients, which each micro-batch backpropagates. Where the
step as a whole is within the limit of a micro-batch, the graphs of the first pass are kept;
otherwise it runs without gradients, and each micro-batch is computed a second time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object

from hubtune.contract import Batch, ContrastiveTask
from hubtune.contract.validation import checked
from hubtune.devices import device
from hubtune.evaluation.batches import to_device

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from hubtune.training.accumulation import Accumulation, MicroBatch

Embedded = tuple[int, "Tensor", Batch]
"""Index of a micro-batch in the step, its embeddings, and the batch."""


class GradCache:
    """Computes a contrastive loss over all micro-batches and devices, and its gradients."""

    def __init__(self, accumulation: Accumulation, task: ContrastiveTask[Any]) -> None:
        self.accumulation, self.task = accumulation, task

    def embed(self, model: Module, step: int, part: MicroBatch) -> Tensor:
        """Return the embeddings of a micro-batch."""
        with self.accumulation.forward_context(step, part):
            outputs = self.task.forward(model, part.batch)
            return checked(self.task, "embed", self.task.embed(outputs, part.batch))

    def compute(
        self, model: Module, step: int, parts: list[MicroBatch]
    ) -> tuple[float, list[Callable[[], Tensor]]]:
        """Return the mean loss over the step, and for each micro-batch what computes its objective.

        An objective is a scalar whose gradient by the micro-batch's embeddings is that of the loss.
        """
        keep = self.keeps_graphs(parts)
        with self.accumulation.agree_on_memory(), torch.set_grad_enabled(keep):
            found = [self.embed(model, step, part) for part in parts]
        own = [(part.index, values.detach(), part.batch)
               for part, values in zip(parts, found, strict=True)]
        mean, gradients = self.loss_and_gradients(own, parts)

        def objective_of(part: MicroBatch, values: Tensor, gradient: Tensor) -> Tensor:
            return ((values if keep else self.embed(model, step, part)) * gradient).sum()

        return mean, [partial(objective_of, *each) for each in zip(parts, found, gradients, strict=True)]

    def keeps_graphs(self, parts: list[MicroBatch]) -> bool:
        """Return whether one pass does: its activations are those of one micro-batch that fits.

        DDP does not synchronize gradients of a forward pass that others follow, so that several
        processes compute twice.
        """
        batcher = self.accumulation.batcher
        padded = sum(batcher.padded_tokens(part.items) for part in parts)
        return self.accumulation.accelerator.num_processes == 1 and padded <= batcher.limit

    def loss_and_gradients(
        self, own: list[Embedded], parts: list[MicroBatch]
    ) -> tuple[float, list[Tensor]]:
        """Return the mean loss over the step, and its gradient by each of this process' embeddings."""
        every = self.gather([entry for entry, part in zip(own, parts, strict=True) if part.weight])
        together = torch.cat([values for _, values, _ in every]).requires_grad_()
        with device.autocast(self.accumulation.context.compute):
            loss = self.task.contrastive_loss(together, [batch for _, _, batch in every])
            loss = checked(self.task, "contrastive_loss", loss)
        count = sum(batch.counts[loss.name] for _, _, batch in every) or 1.0
        mean = loss.weight * loss.total / count
        (gradient,) = torch.autograd.grad(mean, together)
        gradients = torch.split(gradient, [len(values) for _, values, _ in every])
        by_index = dict(zip([index for index, _, _ in every], gradients, strict=True))
        return float(mean.detach()), [
            by_index[index] if index in by_index else torch.zeros_like(values)
            for index, values, _ in own]

    def gather(self, own: list[Embedded]) -> list[Embedded]:
        """Gather the embeddings and batches of all devices, in the order of the step."""
        accelerator = self.accumulation.accelerator
        if accelerator.num_processes == 1:
            return own
        sent = [(index, values.cpu(),
                 replace(batch, inputs={}, targets=to_device(batch.targets, "cpu")))
                for index, values, batch in own]
        every = sorted(gather_object(sent), key=lambda entry: int(entry[0]))
        place = accelerator.device
        return [(index, values.to(place), replace(batch, targets=to_device(batch.targets, place)))
                for index, values, batch in every]

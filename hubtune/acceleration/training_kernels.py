"""The kernels of a training's forward passes, with dropout by row, as an accelerator.

Dropout depends on seed, step and example, so that other micro-batches or another number of
processes change rounding only. Switch: `train.kernels`; dropout is by row with `plain`, too.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from hubtune.acceleration import kernels
from hubtune.acceleration.interface import AccelerationContext, Accelerator, BatchRows, Decision
from hubtune.acceleration.row_axes import RowDropout


class TrainingKernels(Accelerator):
    """Replacements of torch functions in training's forward passes, in this thread only."""

    def __init__(self, context: AccelerationContext, names: tuple[str, ...]) -> None:
        reason = "this device, or train.kernels, has none"
        if names:
            reason = f"replaced: {', '.join(names)}"
        super().__init__("kernels", Decision(bool(names), reason))
        self.context, self.names, self.dropout = context, names, RowDropout()

    def batch(self, rows: BatchRows) -> AbstractContextManager[None]:
        if not rows.is_training:
            return nullcontext()
        model = self.context.model
        draws = self.dropout.draws_for(self.context, model, rows.step, rows.items, rows.batch)
        return kernels.use_kernels(model, self.names, draws)


def find(context: AccelerationContext) -> TrainingKernels:
    """Select the kernels that the device has and the training can use."""
    names = kernels.select_kernels(context.compute.kernels, sharded=context.sharded)
    return TrainingKernels(context, names)

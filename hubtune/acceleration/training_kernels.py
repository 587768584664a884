"""The kernels of a training's forward passes, with dropout drawn by row, behind the interface of accelerators.

Dropout follows from seed, step and example, so that another cut of a step, or another number of processes, changes rounding
only. Switch: `train.kernels`; dropout is drawn by row with `plain`, too.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from hubtune.acceleration import kernels
from hubtune.acceleration.interface import AccelerationContext, Accelerator, BatchRows, Decision
from hubtune.acceleration.row_axes import RowDropout


class TrainingKernels(Accelerator):
    """Functions of torch that are computed in another way in training's forward passes, in this thread alone."""

    def __init__(self, context: AccelerationContext, names: tuple[str, ...]) -> None:
        reason = f"computed in another way: {', '.join(names)}" if names else "this device, or train.kernels, has none"
        super().__init__("kernels", Decision(bool(names), reason))
        self.context, self.names, self.dropout = context, names, RowDropout()

    def batch(self, rows: BatchRows) -> AbstractContextManager[None]:
        if not rows.is_training:
            return nullcontext()
        model = self.context.model
        draws = self.dropout.of(self.context, model, rows.step, rows.items, rows.batch)
        return kernels.applied(model, self.names, draws)


def find(context: AccelerationContext) -> TrainingKernels:
    """The kernels that the device has and the training can use."""
    return TrainingKernels(context, kernels.usable(context.compute.kernels, sharded=context.sharded))

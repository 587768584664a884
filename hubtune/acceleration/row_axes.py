"""Find the dimension of rows in each dropout call by a trial with one example, then two.

Most models have rows first; XLNet has positions first, and DeBERTa applies dropout to a table of
positions that all rows share.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import Module

from hubtune.acceleration import kernels
from hubtune.acceleration.row_dropout import Axes, Packed, RowDraws
from hubtune.evaluation.batches import make_batch

if TYPE_CHECKING:
    from hubtune.acceleration.interface import AccelerationContext
    from hubtune.contract import Base, Batch, Task
    from hubtune.data.dataset import EncodedDataset


class RowDropout:
    """The dropout of a training, with random numbers by row for each forward pass."""

    def __init__(self) -> None:
        self.is_known, self.axes = False, Axes()
        self.is_used = True

    def draws_for(self, context: AccelerationContext, model: Module, step: int,
                  items: Sequence[int], batch: Batch) -> RowDraws | None:
        """Return the random numbers of a forward pass; None without dropout.

        Args:
            items: indices of the batch's examples.
        """
        if not model.training:
            return None
        if not self.is_known:
            axes = find(model, context.task, context.base, context.train)
            self.is_known, self.is_used, self.axes = True, axes is not None, axes or Axes()
        if not self.is_used:
            return None
        return RowDraws(context.settings.seed, step, items, self.axes, find_packing(batch))


class ShapeRecorder(RowDraws):
    """Records the shape of each dropout call."""

    def __init__(self) -> None:
        super().__init__(0, 0, [0])
        self.shapes: list[tuple[int, ...]] = []

    def words(self, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
        self.shapes.append(shape)
        return super().words(shape, device)


def find(model: Module, task: Task[Any], base: Base, train: EncodedDataset) -> Axes | None:
    """Return the dimension of rows in each dropout call in training mode; None without dropout.

    Where the trial fails, or the two passes make different calls, rows are assumed to be first.
    """
    item = int(np.argmin(train.sizes))
    try:
        with preserve_buffers(model):
            alone, twice = (record_shapes(model, task, base, train, [item] * count)
                            for count in (1, 2))
    # A model may refuse a batch of one; the first step says what is wrong with it.
    except Exception:
        return Axes()
    if not alone and not twice:
        return None
    return Axes(tuple(map(find_axis, alone, twice))) if len(alone) == len(twice) else Axes()


def find_axis(alone: Sequence[int], twice: Sequence[int]) -> tuple[int, int | None]:
    """Return a call's number of dimensions, and the one that doubled."""
    doubled = [place for place, (one, two) in enumerate(zip(alone, twice, strict=True))
               if two == 2 * one]
    return len(alone), doubled[0] if doubled else None


def record_shapes(model: Module, task: Task[Any], base: Base, train: EncodedDataset,
                  items: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the shapes of the dropout calls of a forward pass."""
    recorder = ShapeRecorder()
    draws = [train.example_rng(0, 0, item) for item in items]
    batch = make_batch(model, task, [train.examples[item] for item in items], base, draws)
    with torch.no_grad(), kernels.use_kernels(model, (), recorder):
        task.forward(model, batch)
    return recorder.shapes


@contextmanager
def preserve_buffers(model: Module) -> Iterator[None]:
    """Restore the model's buffers, such as running statistics, afterwards."""
    before = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)


def find_packing(batch: Batch) -> Packed | None:
    """Return the row and position of each token if the batch packs its examples into one row."""
    ids, positions = batch.inputs.get("input_ids"), batch.inputs.get("position_ids")
    if batch.size < 2 or ids is None or positions is None:
        return None
    if ids.shape != positions.shape or len(ids) != 1:
        return None
    rows = (positions[0] == 0).cumsum(0) - 1
    return Packed(rows, positions[0]) if int(rows[-1]) == batch.size - 1 else None

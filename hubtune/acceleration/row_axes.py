"""Find out which dimension of each dropout call counts rows: by one example alone, and the same example twice.

Most models have rows first; XLNet has positions first, and DeBERTa drops from a table of positions that all rows share.
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
    """The dropout of a training: draws for each forward pass, by rows."""

    def __init__(self) -> None:
        self.is_known, self.axes = False, Axes()
        self.is_used = True

    def of(self, context: AccelerationContext, model: Module, step: int, items: Sequence[int], batch: Batch) -> RowDraws | None:
        """The draws of a forward pass; None where nothing is dropped. items: numbers of the batch's examples."""
        if not model.training:
            return None
        if not self.is_known:
            axes = find(model, context.task, context.base, context.train)
            self.is_known, self.is_used, self.axes = True, axes is not None, axes or Axes()
        return RowDraws(context.settings.seed, step, items, self.axes, packed(batch)) if self.is_used else None


class ShapeRecorder(RowDraws):
    """Draws that remember the shape of each call."""

    def __init__(self) -> None:
        super().__init__(0, 0, [0])
        self.shapes: list[tuple[int, ...]] = []

    def words(self, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
        self.shapes.append(shape)
        return super().words(shape, device)


def find(model: Module, task: Task[Any], base: Base, train: EncodedDataset) -> Axes | None:
    """The dimension of rows in each dropout call of a forward pass in training mode; None where nothing is dropped.

    Where the trial fails, or calls differ between the two passes, rows are taken to be first.
    """
    item = int(np.argmin(train.sizes))
    try:
        with kept_buffers(model):
            alone, twice = (shapes_of(model, task, base, train, [item] * count) for count in (1, 2))
    except Exception:  # a model may refuse a batch of one; the first step says what is wrong with it
        return Axes()
    if not alone and not twice:
        return None
    return Axes(tuple(map(axis_of, alone, twice))) if len(alone) == len(twice) else Axes()


def axis_of(alone: Sequence[int], twice: Sequence[int]) -> tuple[int, int | None]:
    """The number of dimensions of a call, and the one that doubled."""
    doubled = [place for place, (one, two) in enumerate(zip(alone, twice, strict=True)) if two == 2 * one]
    return len(alone), doubled[0] if doubled else None


def shapes_of(model: Module, task: Task[Any], base: Base, train: EncodedDataset, items: Sequence[int]) -> list[tuple[int, ...]]:
    """The shapes of the dropout calls of a forward pass."""
    recorder = ShapeRecorder()
    draws = [train.example_rng(0, 0, item) for item in items]
    batch = make_batch(model, task, [train.examples[item] for item in items], base, draws)
    with torch.no_grad(), kernels.applied(model, (), recorder):
        task.forward(model, batch)
    return recorder.shapes


@contextmanager
def kept_buffers(model: Module) -> Iterator[None]:
    """Afterwards the model's statistics are what they were."""
    before = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)


def packed(batch: Batch) -> Packed | None:
    """Where the tokens of a batch belong whose examples stand end to end in one row; None for any other batch."""
    ids, positions = batch.inputs.get("input_ids"), batch.inputs.get("position_ids")
    if batch.size < 2 or ids is None or positions is None or ids.shape != positions.shape or len(ids) != 1:
        return None
    rows = (positions[0] == 0).cumsum(0) - 1
    return Packed(rows, positions[0]) if int(rows[-1]) == batch.size - 1 else None

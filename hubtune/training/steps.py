"""The rows of a step, and its micro-batches, as functions of the step's number and the settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hubtune.data.batching import micro_batches, steps_of_epoch
from hubtune.data.dataset import EncodedDataset

if TYPE_CHECKING:
    from hubtune.training.context import TrainingContext


class Sampler:
    """Samples the rows of every step by its number; for a stream, from the window of that step."""

    def __init__(self, context: TrainingContext, epoch_steps: int) -> None:
        self.context, self.epoch_steps = context, epoch_steps
        windows = context.windows
        self.window_steps = epoch_steps
        if windows:
            self.window_steps = windows.size // (context.settings.batch_size or 1)
        self.window: tuple[int, int] | None = None
        self.steps: list[NDArray[np.int64]] = []
        self.set_examples(context.train)

    def set_examples(self, train: EncodedDataset) -> None:
        """Sample from these examples: all of them, or a window of a stream."""
        self.context.train = train
        self.examples_by_row, self.row_sizes = train.examples_by_row(), train.row_sizes()

    def rows(self, step: int) -> NDArray[np.int64]:
        """Return the rows of a step."""
        epoch, place = divmod(step, self.epoch_steps)
        window, place = divmod(place, self.window_steps)
        if self.window != (epoch, window):
            settings = self.context.settings
            if self.context.windows is not None:
                self.set_examples(self.context.windows.open(window))
            number = epoch * -(-self.epoch_steps // self.window_steps) + window
            self.window = epoch, window
            self.steps = steps_of_epoch(
                self.row_sizes, settings.batch_size or 1, settings.sampler or "random",
                settings.seed, number)
        return self.steps[place]

    def examples(self, rows: NDArray[np.int64]) -> list[int]:
        """Return the examples of some rows."""
        return [example for row in rows.tolist() for example in self.examples_by_row[row]]


class MicroBatcher:
    """Divides steps into micro-batches by sizes, cost per micro-batch, and memory limit.

    The division never depends on a time, since it decides rounding: the same run must have the same
    bits on a busy machine.
    """

    def __init__(self, context: TrainingContext) -> None:
        self.context, self.limit = context, context.compute.limit

    def divide(self, items: Sequence[int]) -> list[list[int]]:
        """Return the micro-batches of a step with these examples."""
        sizes, compute = self.context.train.sizes, self.context.compute
        costs = [int(sizes[item]) for item in items]
        return micro_batches(items, costs, compute.overhead, self.limit, compute.uniform)

    def tokens(self, items: Sequence[int]) -> int:
        """Return the tokens of examples, without padding."""
        return int(sum(self.context.train.sizes[item] for item in items))

    def padded_tokens(self, items: Sequence[int]) -> int:
        """Return the tokens of a micro-batch, with padding."""
        return len(items) * max(int(self.context.train.sizes[item]) for item in items)

    def halve(self, micro_batches: Sequence[Sequence[int]]) -> bool:
        """Halve the limit to half of the largest micro-batch; False if each holds one example."""
        several = [self.padded_tokens(part) for part in micro_batches if len(part) > 1]
        if several:
            self.limit = max(1, max(several) // 2)
        return bool(several)

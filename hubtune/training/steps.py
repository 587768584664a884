"""The rows of a step, and its micro-batches: functions of the step's number, the settings and facts of the device."""

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
    """The rows of every step, from its number alone; of a stream, rows of the window that is read at that step."""

    def __init__(self, context: TrainingContext, epoch_steps: int) -> None:
        self.context, self.epoch_steps = context, epoch_steps
        windows = context.windows
        self.window_steps = windows.size // (context.settings.batch_size or 1) if windows else epoch_steps
        self.window: tuple[int, int] | None = None
        self.steps: list[NDArray[np.int64]] = []
        self.use(context.train)

    def use(self, train: EncodedDataset) -> None:
        """Sample from these examples: all of them, or a window of a stream."""
        self.context.train = train
        self.examples_by_row, self.row_sizes = train.examples_by_row(), train.row_sizes()

    def rows(self, step: int) -> NDArray[np.int64]:
        """The rows of a step."""
        epoch, place = divmod(step, self.epoch_steps)
        window, place = divmod(place, self.window_steps)
        if self.window != (epoch, window):
            settings = self.context.settings
            if self.context.windows is not None:
                self.use(self.context.windows.open(window))
            number = epoch * -(-self.epoch_steps // self.window_steps) + window
            self.window = epoch, window
            self.steps = steps_of_epoch(
                self.row_sizes, settings.batch_size or 1, settings.sampler or "random", settings.seed, number
            )
        return self.steps[place]

    def examples(self, rows: NDArray[np.int64]) -> list[int]:
        """The examples of some rows."""
        return [example for row in rows.tolist() for example in self.examples_by_row[row]]


class StepCutter:
    """Cuts steps into micro-batches: by sizes, the cost of a micro-batch, and a limit that memory sets.

    The cut follows facts alone, never a time: it decides rounding, and the same run has the same bits on a busy machine.
    """

    def __init__(self, context: TrainingContext) -> None:
        self.context, self.limit = context, context.compute.limit

    def cut(self, items: Sequence[int]) -> list[list[int]]:
        """The micro-batches of a step with these examples."""
        sizes, compute = self.context.train.sizes, self.context.compute
        return micro_batches(items, [int(sizes[item]) for item in items], compute.overhead, self.limit, compute.uniform)

    def tokens(self, items: Sequence[int]) -> int:
        """Tokens of examples, without padding."""
        return int(sum(self.context.train.sizes[item] for item in items))

    def padded_tokens(self, items: Sequence[int]) -> int:
        """Tokens of a micro-batch, with padding."""
        return len(items) * max(int(self.context.train.sizes[item]) for item in items)

    def halve(self, cuts: Sequence[Sequence[int]]) -> bool:
        """Allow half as many tokens in a micro-batch as the largest of these has; False where each holds one example."""
        several = [self.padded_tokens(part) for part in cuts if len(part) > 1]
        if several:
            self.limit = max(1, max(several) // 2)
        return bool(several)

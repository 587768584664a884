"""What micro-batches hold in memory, tried from small to large, and the limits that follow: nothing is guessed.

On a CPU nobody says that memory is short: the kernel ends the process. So a micro-batch is only tried where a smaller one
has shown that it fits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hubtune.devices import memory, processes
from hubtune.evaluation import inference
from hubtune.evaluation.model_checks import out_of_memory
from hubtune.training import accumulation
from hubtune.training.cost_model import Rung, bytes_of, fitting, ladder

if TYPE_CHECKING:
    from hubtune.devices.device import Compute
    from hubtune.training.state import TrainingState

PIECES = 2
"""On a CPU, how many times as much is held as is used: what is freed stays, in pieces of the sizes that it had. MiniLM held
0.77 GB after an epoch, where its largest step used 0.4."""
SHARE = 0.85
"""The share of what memory is left that training may take."""


class Footprint:
    """The memory of a state, with its optimizer's state in it. step: the gradient of a micro-batch, which is forgotten;
    quick: whether a micro-batch takes so little time that it is tried without need."""

    def __init__(self, state: TrainingState, step: Callable[[Rung], None], quick: Callable[[Rung], bool]) -> None:
        self.state, self.context, self.step, self.quick = state, state.context, step, quick
        self.device = state.context.compute.device
        self.pieces = PIECES if self.device == "cpu" else 1
        self.room = 0

    def limits(self, compute: Compute) -> tuple[Compute, dict[str, Any] | None, int | None]:
        """The limits that memory suffices for; what was seen; and the most that training will hold. None where nobody says."""
        memory.give_back(self.device)
        room, held, copies = processes.together((memory.room(self.device), memory.held(self.device), self.copies()))
        if room is None or held is None:
            return compute, None, None
        self.room = int(SHARE * room) - copies
        train = self.context.train
        longest = train.row_sizes().argsort()[::-1][: self.context.settings.batch_size]
        rungs = ladder(train.sizes, compute.limit, int(np.isin(train.owner, longest).sum()))
        grads = self.pieces * sum(value.nbytes for value in self.state.module.parameters() if value.requires_grad)
        fits, tried = self.climbed(rungs, self.step, grads)
        if (fits is None or fits[1] < rungs[-1][1]) and self.context.may_recompute and accumulation.recompute(self.state.module):
            compute = replace(compute, recompute=True)
            self.state.take(compute)
            fits, tried = self.climbed(rungs, self.step, grads)
        count, size = fits or (1, rungs[0][1])
        if fits != rungs[-1]:
            compute = replace(compute, limit=count * size)
        compute = replace(compute, evaluation=self.evaluation(compute.evaluation))
        said = {"room": room, "tried": [{"examples": rung[0], "size": rung[1], "bytes": used} for rung, used in tried]}
        return compute, said, held + copies + bytes_of((count, size), tried, grads)

    def climbed(self, rungs: Sequence[Rung], compute: Callable[[Rung], None], fixed: int = 0) -> tuple[Rung | None, list[tuple[Rung, int]]]:
        """As `fitting` says, from what is held now."""
        memory.give_back(self.device)
        held = memory.held(self.device) or 0
        return fitting(rungs, lambda rung: self.used(held, compute, rung), self.room, self.quick, fixed)

    def used(self, held: int, compute: Callable[[Rung], None], rung: Rung) -> int | None:
        """Bytes beyond what was held that a micro-batch will hold at most, as the first process sees it; None: there were none left."""
        memory.begin(self.device)
        fine = True
        try:
            compute(rung)
        except Exception as error:
            if not out_of_memory(error) or self.context.shard:
                raise
            fine = False
        if not fine:  # the error is gone, and with it what it held
            memory.give_back(self.device)
            return None
        return processes.together(self.pieces * max(0, memory.since(self.device) - held))

    def copies(self) -> int:
        """Bytes that saving takes of this memory beside the training: a copy of what learns, and of AdamW's two."""
        if self.device != "cpu":
            return 0
        return 3 * sum(value.nbytes for name, value in self.state.module.named_parameters() if name in self.state.learned)

    def evaluation(self, limit: int) -> int:
        """The limit of batches that are only answered."""
        rungs = ladder(self.context.validation.sizes, min(limit, inference.limit_on(self.device)), inference.MOST)
        with self.state.vocabularies.whole():
            fits, _ = self.climbed(rungs, self.postprocess)
        count, size = fits or (1, rungs[0][1])
        return limit if fits == rungs[-1] else count * size

    def postprocess(self, rung: Rung) -> None:
        """Answer so many examples of a size, as a validation does."""
        state, context = self.state, self.context
        count, size = rung
        items = [int(np.abs(context.validation.sizes - size).argmin())] * count
        with inference.evaluating(state.module) as model:
            batch = inference.batch_for(model, context.task, [context.validation.examples[item] for item in items], context.base)
            with state.features.validation(items, batch):
                outputs = context.task.forward(model, batch)
            context.task.postprocess(outputs, batch, context.base)
            if batch.targets is not None:
                context.task.loss(outputs, batch)

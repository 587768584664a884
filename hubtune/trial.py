"""What a training costs here, tried before step 0: seconds of a micro-batch, and what memory suffices for.

Nothing is learnt from it: weights, statistics and generators are afterwards as they were, and the optimizer is made anew.
"""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hubtune import evaluate, gradient, launch, memory, vocabulary
from hubtune.estimate import Pace, Rung, fitting, ladder, overhead, pace
from hubtune.learner import out_of_memory

if TYPE_CHECKING:
    from hubtune.device import Compute
    from hubtune.encoding import Encoded
    from hubtune.engine import Loop
    from hubtune.learner import Learner

ROUNDS, SECONDS = 5, 1.0
"""How often each step is timed, and after how many seconds no more."""
SLOW = 2.0
"""Seconds of the smallest step beyond which no more are taken: so large a model has its time in its tokens."""
QUICK = 0.25
"""Seconds that the largest micro-batch may take to be tried, though all speaks for its fitting."""
TOKENS = 128
"""What the larger of the timed micro-batches holds: enough that its time is that of its tokens."""
COUNTED = 200
"""Steps of an epoch whose micro-batches are counted; where there are more, the others are taken to be like these."""
PIECES = 2
"""On a CPU, how many times as much is held as is used: what is freed stays, in pieces of the sizes that it had. MiniLM held
0.77 GB after an epoch, where its largest step used 0.4."""
SHARE = 0.85
"""The share of what memory is left that training may take."""


@dataclass(frozen=True)
class Found:
    """What a trial has found. pace: by the clock; none: not measured. optimizer: seconds of its step. peak: bytes at most."""

    compute: Compute
    pace: Pace | None
    optimizer: float
    peak: int | None


def measure(learner: Learner) -> Found:
    """Try a training: how its steps are best cut, and what fits. The learner computes so from now on.

    A model that cannot be tried, such as one whose batch norm takes no single example, keeps the plan that it has.
    """
    found = Found(learner.work.compute, None, 0.0, None)
    try:
        try:
            found = Trial(learner).run()
        except vocabulary.Unmet:  # a word that was drawn: the whole table is tried
            with learner.vocabularies.whole():
                found = Trial(learner).run()
    except Exception as error:  # whatever it is, step 0 will tell if it matters
        reason = " ".join(str(error).split())[:200]
        found = replace(found, compute=replace(found.compute, trial={"reason": f"{type(error).__name__}: {reason}"}))
    learner.take(found.compute)
    return found


def counted(loop: Loop) -> tuple[float, float]:
    """Micro-batches and padded tokens of a step, as an epoch has them on average."""
    found = []
    for step in range(min(loop.epoch_steps, COUNTED)):
        cuts = loop.learner.cuts([example for row in loop.rows_of(step) for example in loop.rows_examples[int(row)]])
        found.append((len(cuts), sum(map(loop.learner.padded, cuts))))
    micro_batches, padded = np.mean(found, axis=0).tolist()
    return micro_batches, padded


def expected(loop: Loop, found: Found) -> dict[str, Any] | None:
    """What the steps of an epoch will take, and the most memory; for `run.json`, beside what happens."""
    if found.pace is None:
        return None
    seconds = found.pace.of(*counted(loop)) + found.optimizer
    return {"seconds_an_epoch": round(seconds * loop.epoch_steps, 3), "peak_memory_bytes": found.peak}


@contextlib.contextmanager
def untouched(learner: Learner) -> Iterator[None]:
    """Afterwards all is as it was before; the next step enters its phase anew."""
    buffers = [(buffer, buffer.detach().clone()) for buffer in learner.module.buffers()]
    drawn = torch.get_rng_state(), np.random.get_state(), random.getstate()
    on_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None
    try:
        yield
    finally:
        if learner.phase >= 0:
            learner.optimizer.optimizer.state.clear()
        learner.phase = -1
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
        for parameter in learner.module.parameters():
            parameter.grad = None
        torch.set_rng_state(drawn[0])
        np.random.set_state(drawn[1])
        random.setstate(drawn[2])
        if on_gpus is not None:
            torch.cuda.set_rng_state_all(on_gpus)


class Trial:
    """One trial, in the phase that takes the most memory."""

    def __init__(self, learner: Learner) -> None:
        self.learner, self.work, self.device = learner, learner.work, learner.work.compute.device
        self.sorted = self.work.train.sizes.argsort(kind="stable")
        self.short = False

    def run(self) -> Found:
        """Time first, then memory, with the optimizer's state there as it will be."""
        learner, compute = self.learner, self.work.compute
        widths = [sum(value.numel() for name, value in learner.module.named_parameters() if name in names)
                  for names in learner.learning]
        with untouched(learner):
            learner.enter(widths.index(max(widths)))
            learner.train_mode()
            paces = self.paces()
            if paces:
                compute = replace(compute, overhead=overhead(paces[0]))
            seconds = self.stepped()
            compute, said, peak = self.remembered(compute, paces[1] if paces else None)
        wall = {name: float(f"{value:.3g}") for name, value in asdict(paces[1]).items()} if paces else None
        compute = replace(compute, trial={"seconds": wall, "optimizer_seconds": float(f"{seconds:.3g}"), "memory": said})
        return Found(compute, paces[1] if paces else None, seconds, peak)

    # ------------------------------------------------------------------------------------------------------------ time

    def example(self, size: int) -> int:
        """An example that is at least so large."""
        sizes = self.work.train.sizes[self.sorted]
        return int(self.sorted[min(len(sizes) - 1, int(np.searchsorted(sizes, size)))])

    def step(self, cuts: Sequence[list[int]]) -> None:
        """The gradient of a step, which is forgotten. Every process computes as many micro-batches as one alone would."""
        learner = self.learner
        learner.optimizer.zero_grad(set_to_none=True)
        try:
            learner.gradient.of_step(learner.model, 0, 0, [items for items in cuts for _ in range(learner.accelerator.num_processes)])
        finally:
            learner.optimizer.zero_grad(set_to_none=True)

    def clocked(self, cuts: Sequence[list[int]]) -> tuple[float, float]:
        """Seconds of a step: of this process on a CPU, where others may be at work, and by the clock."""
        own, wall = time.process_time(), time.perf_counter()
        self.step(cuts)
        if self.device == "cuda":
            torch.cuda.synchronize()
        wall = time.perf_counter() - wall
        return (time.process_time() - own if self.device == "cpu" else wall), wall

    def paces(self) -> tuple[Pace, Pace] | None:
        """The pace by the two clocks; None where one step is slow, or where memory is so short that even these do not fit."""
        try:
            return self.timed()
        except Exception as error:
            self.short = out_of_memory(error)
            if not self.short:
                raise
            return None

    def timed(self) -> tuple[Pace, Pace] | None:
        """The same, each time the least of a few."""
        item = int(self.sorted[len(self.sorted) // 10])
        size = max(1, int(self.work.train.sizes[item]))
        count = min(16, max(4, -(-TOKENS // size)))
        steps = ([[item]], [[item], [item]], [[item] * count])
        begun = time.perf_counter()
        if launch.together(self.clocked(steps[0]))[1] > SLOW:  # which also prepares what is prepared once
            return None
        least = np.full((len(steps), 2), np.inf)
        for _ in range(ROUNDS):
            for number, cuts in enumerate(steps):
                least[number] = np.minimum(least[number], self.clocked(cuts))
            if launch.together(time.perf_counter() - begun) > SECONDS:
                break
        own, wall = (pace(one, two, many, size, count) for one, two, many in launch.together(least).T.tolist())
        return own, wall

    def stepped(self) -> float:
        """Seconds of the optimizer's step, the better of two, after which it has its state. The weights are put back."""
        optimizer = self.learner.optimizer.optimizer
        weights = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        kept = [weight.detach().to("cpu", copy=True) for weight in weights]
        seconds = math.inf
        for _ in range(2):
            for weight in weights:
                weight.grad = torch.zeros_like(weight)
            begun = time.perf_counter()
            optimizer.step()
            if self.device == "cuda":
                torch.cuda.synchronize()
            seconds = min(seconds, time.perf_counter() - begun)
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for weight, value in zip(weights, kept, strict=True):
                weight.copy_(value)
        return seconds

    # ---------------------------------------------------------------------------------------------------------- memory

    def remembered(self, compute: Compute, found: Pace | None) -> tuple[Compute, dict[str, Any] | None, int | None]:
        """The limits that memory suffices for; what was seen; and the most that training will hold. None where nobody says."""
        memory.give_back(self.device)
        room, held = launch.together((memory.room(self.device), memory.held(self.device)))
        if room is None or held is None:
            return compute, None, None
        room = int(SHARE * room) - self.copies()
        longest = self.work.train.row_sizes().argsort()[::-1][: self.work.settings.batch_size]
        rungs = ladder(self.work.train.sizes, compute.limit, int(np.isin(self.work.train.owner, longest).sum()))
        grads = sum(parameter.nbytes for parameter in self.learner.module.parameters() if parameter.requires_grad)
        grads *= PIECES if self.device == "cpu" else 1

        def quick(rung: Rung) -> bool:
            return self.short or (found is not None and found.of(1, rung[0] * rung[1]) < QUICK)

        def climbed() -> tuple[Rung | None, Rung | None, int]:
            return fitting(rungs, lambda rung: self.used(held, rung), room, quick, grads)

        fits, tried, taken = climbed()
        if (fits is None or fits[1] < rungs[-1][1]) and not compute.recompute and gradient.recompute(self.learner.module):
            compute = replace(compute, recompute=True)
            self.learner.take(compute)
            fits, tried, taken = climbed()
        count, size = fits or (1, rungs[0][1])
        if fits != rungs[-1]:
            compute = replace(compute, limit=count * size)
        compute = self.answered(compute, held, room, quick)
        said = {"room": room, "used": taken, "examples": tried[0] if tried else 0, "size": tried[1] if tried else 0}
        tokens = tried[0] * tried[1] if tried else count * size
        peak = held + self.copies() + grads + int(max(0, taken - grads) * count * size / max(1, tokens))
        return compute, said, peak

    def copies(self) -> int:
        """Bytes that saving takes of this memory beside the training: a copy of what learns, and of AdamW's two."""
        if self.device != "cpu" or not self.learner.accelerator.is_main_process:
            return 0
        return 3 * sum(value.nbytes for name, value in self.learner.module.named_parameters() if name in self.learner.learned)

    def used(self, held: int, rung: Rung) -> int | None:
        """Bytes that the gradient of a micro-batch takes beyond what was held; None if they were not to be had."""
        count, size = rung
        return self.taken_by(held, lambda: self.step([[self.example(size)] * count]))

    def taken_by(self, held: int, compute: Callable[[], None]) -> int | None:
        """Bytes that something will hold at most, as the first process sees it."""
        memory.begin(self.device)
        try:
            compute()
        except Exception as error:
            if not out_of_memory(error) or self.learner.accelerator.num_processes > 1:
                raise
            memory.give_back(self.device)
            return None
        return launch.together(max(0, memory.since(self.device) - held) * (PIECES if self.device == "cpu" else 1))

    def answered(self, compute: Compute, held: int, room: int, quick: Callable[[Rung], bool]) -> Compute:
        """The limit of evaluation batches."""
        encoded = self.work.validation
        rungs = ladder(encoded.sizes, compute.evaluation, evaluate.MOST)
        with self.learner.vocabularies.whole():
            fits, _, _ = fitting(rungs, lambda rung: self.taken_by(held, lambda: self.judged(encoded, rung)), room, quick)
        if fits == rungs[-1]:
            return compute
        count, size = fits or (1, rungs[0][1])
        return replace(compute, evaluation=count * size)

    def judged(self, encoded: Encoded, rung: Rung) -> None:
        """Answer some examples of a size, as a validation does."""
        learner, work = self.learner, self.work
        count, size = rung
        items = [int(np.abs(encoded.sizes - size).argmin())] * count
        with evaluate.evaluating(learner.module) as model:
            batch = evaluate.batch_for(model, work.task, [encoded.examples[item] for item in items], work.base)
            with learner.features.validation(items, batch):
                outputs = work.task.forward(model, batch)
            work.task.judge(outputs, batch, work.base)
            if batch.targets is not None:
                work.task.loss(outputs, batch)

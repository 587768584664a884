"""What a training costs here, tried before step 0: seconds of a micro-batch, and what memory suffices for.

Nothing is learnt from it: weights, statistics and generators are afterwards as they were, and the optimizer is made anew.
"""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hubtune.acceleration import embedding_pruning
from hubtune.devices import device, processes
from hubtune.evaluation import equivalence
from hubtune.evaluation.model_checks import out_of_memory
from hubtune.training.cost_model import Pace, Rung, overhead, pace
from hubtune.training.memory_search import Footprint

if TYPE_CHECKING:
    from hubtune.devices.device import Compute
    from hubtune.training.loop import Loop
    from hubtune.training.state import TrainingState

ROUNDS, SECONDS = 5, 1.0
"""How often each step is timed, and after how many seconds no more."""
SLOW = 2.0
"""Seconds of the smallest step beyond which no more are taken: so large a model has its time in its tokens."""
QUICK = 0.25
"""Seconds that the largest micro-batch may take to be tried, though all speaks for its fitting."""
TOKENS, TOKENS_OF_A_GPU = 128, 4096
"""What the larger of the timed micro-batches holds: enough that its time is that of its tokens."""
COUNTED = 200
"""Steps of an epoch whose micro-batches are counted; where there are more, the others are taken to be like these."""


@dataclass(frozen=True)
class Found:
    """What a trial has found. pace: by the clock; none: not measured. optimizer: seconds of its step. peak: bytes at most."""

    compute: Compute
    pace: Pace | None
    optimizer: float
    peak: int | None


def measure(state: TrainingState) -> Found:
    """Try a training: how its steps are best cut, and what fits. The state computes so from now on.

    A model that cannot be tried, such as one whose batch norm takes no single example, keeps the plan that it has.
    """
    found = Found(state.context.compute, None, 0.0, None)
    try:
        try:
            found = Trial(state).run()
        except embedding_pruning.Unmet:  # a word that was drawn: the whole table is tried
            with state.vocabularies.whole():
                found = Trial(state).run()
    except Exception as error:  # whatever it is, step 0 will tell if it matters
        reason = " ".join(str(error).split())[:200]
        found = replace(found, compute=replace(state.context.compute, trial={"reason": f"{type(error).__name__}: {reason}"}))
    state.take(found.compute)
    return found


def counted(loop: Loop) -> tuple[float, float]:
    """Micro-batches of a step and what they compute, in tokens, as an epoch has them on average."""
    found = []
    for step in range(min(loop.epoch_steps, loop.window_steps, COUNTED)):
        cuts = loop.state.cuts([example for row in loop.rows_of(step) for example in loop.rows_examples[int(row)]])
        found.append((len(cuts), sum(map(loop.state.places, cuts))))
    micro_batches, places = np.mean(found, axis=0).tolist()
    return micro_batches, places


def cost(loop: Loop) -> float:
    """What a step costs, in tokens."""
    micro_batches, places = counted(loop)
    return places + micro_batches * loop.context.compute.overhead


def expected(loop: Loop, found: Found) -> dict[str, Any] | None:
    """What the steps of an epoch will take, and the most memory; for `run.json`, beside what happens."""
    if found.pace is None:
        return None
    seconds = found.pace.of(*counted(loop)) + found.optimizer
    return {"seconds_an_epoch": round(seconds * loop.epoch_steps, 3), "peak_memory_bytes": found.peak}


@contextlib.contextmanager
def untouched(state: TrainingState) -> Iterator[None]:
    """Afterwards all is as it was before; the next step enters its phase anew."""
    buffers = [(buffer, buffer.detach().clone()) for buffer in state.module.buffers()]
    drawn = torch.get_rng_state(), np.random.get_state(), random.getstate()
    on_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None
    try:
        yield
    finally:
        state.leave()
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
        for parameter in state.module.parameters():
            parameter.grad = None
        torch.set_rng_state(drawn[0])
        np.random.set_state(drawn[1])
        random.setstate(drawn[2])
        if on_gpus is not None:
            torch.cuda.set_rng_state_all(on_gpus)


class Trial:
    """One trial, in the phase that takes the most memory."""

    def __init__(self, state: TrainingState) -> None:
        self.state, self.context, self.device = state, state.context, state.context.compute.device
        self.sorted = self.context.train.sizes.argsort(kind="stable")
        self.short, self.rate = False, math.inf  # seconds of a token at most, with its share of all else

    def run(self) -> Found:
        """Time first, then memory, with the optimizer's state there as it will be."""
        state, compute = self.state, self.context.compute
        with untouched(state):
            state.enter(self.widest())
            state.train_mode()
            own, ratio = self.paced()
            if own:
                compute = replace(compute, overhead=overhead(own))
            seconds = self.stepped()

            def quick(rung: Rung) -> bool:
                return self.short or self.rate * rung[0] * rung[1] < QUICK

            compute, said, peak = Footprint(state, lambda rung: self.step([[self.example(rung[1])] * rung[0]]), quick).limits(compute)
        wall = own.times(ratio) if own else None if self.short else Pace(0.0, 0.0, self.rate)
        figures = {name: float(f"{value:.3g}") for name, value in asdict(wall).items()} if wall else None
        compute = replace(compute, trial={"seconds": figures, "optimizer_seconds": float(f"{seconds:.3g}"), "memory": said})
        return Found(compute, wall, seconds, peak)

    def compared(self) -> tuple[list[torch.Tensor], float]:
        """What a few examples give, without dropout, and the seconds of a token in a micro-batch of many, the best of three."""
        state, context = self.state, self.context
        items = equivalence.spread(context.train, 8)
        with untouched(state):
            state.enter(self.widest())
            with state.vocabularies.whole(), state.blocks(), device.autocast(context.compute):
                found = [] if context.shard else equivalence.learnt(context.task, context.base, context.train, state.module, items)
            state.train_mode()
            size = max(1, int(context.train.sizes[items[-1]]))
            many = [items[-1]] * max(1, min(len(context.train.sizes), context.compute.limit // size, 4 * TOKENS_OF_A_GPU // size))
            seconds = min(processes.together(self.clocked([many]))[0] for _ in range(3))
        return found, seconds / (size * len(many))

    def widest(self) -> int:
        """The phase in which the most weights learn."""
        widths = [sum(value.numel() for name, value in self.state.module.named_parameters() if name in names)
                  for names in self.state.learning]
        return widths.index(max(widths))

    def example(self, size: int) -> int:
        """An example that is at least so large."""
        sizes = self.context.train.sizes[self.sorted]
        return int(self.sorted[min(len(sizes) - 1, int(np.searchsorted(sizes, size)))])

    def step(self, cuts: Sequence[list[int]]) -> None:
        """The gradient of a step, which is forgotten. Every process computes as many micro-batches as one alone would."""
        state = self.state
        state.optimizer.zero_grad(set_to_none=True)
        try:
            state.gradient.of_step(state.model, 0, 0, [items for items in cuts for _ in range(state.accelerator.num_processes)])
        finally:
            state.optimizer.zero_grad(set_to_none=True)

    def clocked(self, cuts: Sequence[list[int]]) -> tuple[float, float]:
        """Seconds of a step: of this process on a CPU, where others may be at context, and by the clock."""
        own, wall = time.process_time(), time.perf_counter()
        self.step(cuts)
        if self.device == "cuda":
            torch.cuda.synchronize()
        wall = time.perf_counter() - wall
        return (time.process_time() - own if self.device == "cpu" else wall), wall

    def paced(self) -> tuple[Pace | None, float]:
        """The pace by this process' own clock, and how many seconds of the wall's are one of it. None: it was not measured,
        since a step is slow and has its time in its tokens, or since memory is so short that even these steps do not fit."""
        try:
            return self.timed()
        except Exception as error:
            self.short = out_of_memory(error)
            if not self.short:
                raise
            return None, 1.0

    def timed(self) -> tuple[Pace | None, float]:
        """The same, from the least of some times of each step."""
        item = int(self.sorted[len(self.sorted) // 10])
        size = max(1, int(self.context.train.sizes[item]))
        wanted = TOKENS if self.device == "cpu" else TOKENS_OF_A_GPU
        count = max(4, min(-(-wanted // size), wanted // 8))
        steps = ([[item]], [[item], [item]], [[item] * count])
        begun = time.perf_counter()
        first = processes.together(self.clocked(steps[0]))[1]  # which also prepares what is prepared once
        if first > SLOW:
            self.rate = first / size
            return None, 1.0
        times = []
        for _ in range(ROUNDS):
            times.append([self.clocked(cuts) for cuts in steps])
            if processes.together(time.perf_counter() - begun) > SECONDS:
                break
        found = np.array(processes.together(times))  # (rounds, steps, clocks)
        one, two, many = found[:, :, 0].min(0).tolist()
        own_seconds, wall_seconds = found.sum((0, 1)).tolist()
        ratio = wall_seconds / max(own_seconds, 1e-9)
        self.rate = many * ratio / (count * size)
        return pace(one, two, many, size, count), ratio

    def stepped(self) -> float:
        """Seconds of the optimizer's step, the better of two, after which it has its state. The weights are put back."""
        optimizer = self.state.optimizer.optimizer
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

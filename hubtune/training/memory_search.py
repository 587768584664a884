"""Memory search: find the largest micro-batch that fits, by computing some before step 0.

A CPU does not report that memory is short: the kernel kills the process. So a micro-batch is
computed only if a smaller one has shown that it fits, and the search ends as soon as the growth so
far leaves room for the largest. Memory decides, never a time; if there is enough, the limits stay
those of the device, whatever else the machine does.

Weights, statistics and generators are restored afterwards, and the optimizer is created again.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from hubtune.acceleration.interface import BatchRows
from hubtune.contract.validation import loss_terms
from hubtune.devices import memory, processes
from hubtune.evaluation.batches import MAX_EXAMPLES, evaluation_mode, make_batch, max_tokens_on
from hubtune.evaluation.model_checks import is_out_of_memory

if TYPE_CHECKING:
    from hubtune.training.accumulation import Accumulation
    from hubtune.training.state import TrainingState

Rung = tuple[int, int]
"""A micro-batch: number of examples, and tokens of each."""
Tries = list[tuple[Rung, int]]
"""Computed micro-batches, with their bytes."""
HEAP_FACTOR = 2
"""Ratio of held to used memory on a CPU, where freed blocks stay allocated in their sizes.

MiniLM held 0.77 GB after an epoch, where its largest step used 0.4.
"""
SHARE = 0.85
"""Maximum share of the free memory for training."""


def search(state: TrainingState, accumulation: Accumulation) -> int | None:
    """Set the limits of micro-batches; return the maximum bytes of training, None if unknown.

    A model that cannot be tried, such as one with batch norms that refuse a single example, keeps
    its limits.
    """
    context, peak = state.context, None
    with preserve_state(state):
        try:
            peak = MemorySearch(state, accumulation).set_limits()
        except Exception as error:  # step 0 raises it again if it matters
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            context.compute = replace(context.compute, trial={"reason": reason})
    accumulation.batcher.limit = context.compute.limit
    return peak


@contextlib.contextmanager
def preserve_state(state: TrainingState) -> Iterator[None]:
    """Restore buffers, gradients and random state afterwards; the phase starts again."""
    buffers = [(buffer, buffer.detach().clone()) for buffer in state.module.buffers()]
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    on_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None
    try:
        yield
    finally:
        state.end_phase()
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
        for parameter in state.module.parameters():
            parameter.grad = None
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])
        if on_gpus is not None:
            torch.cuda.set_rng_state_all(on_gpus)


class MemorySearch:
    """One search, in the phase that trains the most weights."""

    def __init__(self, state: TrainingState, accumulation: Accumulation) -> None:
        self.state, self.context, self.accumulation = state, state.context, accumulation
        self.device = self.context.compute.device
        self.factor = HEAP_FACTOR if self.device == "cpu" else 1
        self.by_size = self.context.train.sizes.argsort(kind="stable")
        self.room = 0

    def set_limits(self) -> int | None:
        """Set the limits in `context.compute`; return the maximum bytes of training."""
        state, context, train = self.state, self.context, self.context.train
        state.start_phase(state.phases.largest_phase(state.module))
        state.train_mode()
        memory.release_free_memory(self.device)
        available, current = memory.available_bytes(self.device), memory.current_bytes(self.device)
        room, held, beside = processes.broadcast((available, current, self.fixed_bytes()))
        if room is None or held is None:
            return None
        self.room = int(SHARE * room) - beside
        longest = train.row_sizes().argsort()[::-1][: context.settings.batch_size]
        rungs = ladder(train.sizes, context.compute.limit, int(np.isin(train.owner, longest).sum()))
        trained = [value for value in state.module.parameters() if value.requires_grad]
        gradients = self.factor * sum(value.nbytes for value in trained)
        largest, tries = self.search_largest(rungs, self.train_micro_batch, gradients)
        too_small = largest is None or largest[1] < rungs[-1][1]
        if too_small and context.may_recompute and self.accumulation.recompute(state.module):
            largest, tries = self.search_largest(rungs, self.train_micro_batch, gradients)
        count, size = largest or (1, rungs[0][1])
        limit = context.compute.limit if largest == rungs[-1] else count * size
        tried = [{"examples": rung[0], "size": rung[1], "bytes": used} for rung, used in tries]
        context.compute = replace(
            context.compute, limit=limit, trial={"room": room, "tried": tried},
            evaluation=self.evaluation_limit(context.compute.evaluation))
        return held + beside + estimate_bytes((count, size), tries, gradients)

    def fixed_bytes(self) -> int:
        """Return the bytes besides the passes: AdamW's moments."""
        trained = sum(value.nbytes for value in self.state.module.parameters()
                      if value.requires_grad)
        return 2 * trained

    def evaluation_limit(self, limit: int) -> int:
        """Return the limit of evaluation batches."""
        most = min(limit, max_tokens_on(self.device))
        rungs = ladder(self.context.validation.sizes, most, MAX_EXAMPLES)
        with self.state.accelerators.full_weights():
            largest, _ = self.search_largest(rungs, self.evaluate)
        count, size = largest or (1, rungs[0][1])
        return limit if largest == rungs[-1] else count * size

    def search_largest(self, rungs: Sequence[Rung], compute: Callable[[Rung], None],
                       fixed: int = 0) -> tuple[Rung | None, Tries]:
        """Find the largest rung that fits, starting from the current memory."""
        memory.release_free_memory(self.device)
        held = memory.current_bytes(self.device) or 0
        def measure(rung: Rung) -> int | None:
            return self.measure_bytes(held, compute, rung)

        return largest_that_fits(rungs, measure, self.room, fixed)

    def measure_bytes(self, held: int, compute: Callable[[Rung], None], rung: Rung) -> int | None:
        """Measure a micro-batch's bytes beyond `held`, in the first process; None if out of memory.
        """
        memory.reset_peak(self.device)
        has_fit = True
        try:
            compute(rung)
        except Exception as error:
            if not is_out_of_memory(error) or self.context.shard:
                raise
            has_fit = False
        if not has_fit:  # the error is gone, and with it the memory that it held
            memory.release_free_memory(self.device)
            return None
        used = max(0, memory.peak_since_reset(self.device) - held)
        return processes.broadcast(self.factor * used)

    def train_micro_batch(self, rung: Rung) -> None:
        """Run the forward and backward passes of a micro-batch in each process."""
        count, size = rung
        sizes = self.context.train.sizes[self.by_size]
        item = int(self.by_size[min(len(sizes) - 1, int(np.searchsorted(sizes, size)))])
        micro_batches = [[item] * count] * self.state.accelerator.num_processes
        try:
            self.accumulation.gradient(self.state.model, 0, 0, micro_batches)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            self.state.optimizer.zero_grad(set_to_none=True)
            # A pruned embedding may lack a token that was drawn.
            with self.state.accelerators.full_weights():
                self.accumulation.gradient(self.state.model, 0, 0, micro_batches)
        finally:
            self.state.optimizer.zero_grad(set_to_none=True)

    def evaluate(self, rung: Rung) -> None:
        """Evaluate a batch as in validation."""
        context = self.context
        count, size = rung
        items = [int(np.abs(context.validation.sizes - size).argmin())] * count
        with evaluation_mode(self.state.module) as model:
            examples = [context.validation.examples[item] for item in items]
            batch = make_batch(model, context.task, examples, context.base)
            with self.state.accelerators.batch(BatchRows("validation", items, batch)):
                outputs = context.task.forward(model, batch)
            context.task.postprocess(outputs, batch, context.base)
            if batch.targets is not None:
                loss_terms(context.task, outputs, batch)


def ladder(sizes: NDArray[np.int64], limit: int, most: int) -> list[Rung]:
    """Return micro-batches up to the largest of a run, doubling in length, then in number.

    Args:
        sizes: of all examples.
        most: maximum number of examples in a step.
    """
    known = np.unique(sizes)
    longest = int(known[-1])
    wanted = [longest / 2**power for power in (4, 3, 2, 1, 0)]
    rungs = [(1, int(known[int(np.searchsorted(known, size))])) for size in wanted]
    largest = max(1, min(limit // max(1, longest), most))
    powers = [2**power for power in range(1, largest.bit_length())]
    counts = [power for power in powers if power < largest] + [largest]
    return list(dict.fromkeys([*rungs, *((count, longest) for count in counts)]))


def growth_factor(one: Rung, other: Rung) -> float:
    """Return by which factor memory may grow: with tokens and, for attention, with the length."""
    tokens = other[0] * other[1] / max(1, one[0] * one[1])
    return max(1.0, tokens) * max(1.0, other[1] / max(1, one[1]))


def largest_that_fits(
    rungs: Sequence[Rung], bytes_used: Callable[[Rung], int | None], room: int, fixed: int = 0
) -> tuple[Rung | None, Tries]:
    """Find the last rung that fits in `room` bytes, and the computed ones.

    After the first, a rung is computed only if the bytes so far leave room for its growth, and none
    if they leave room for all.

    Args:
        bytes_used: computes a rung; None if memory ran out.
        fixed: bytes of a rung that do not grow.

    Returns:
        The rung, None if not even the first fits; and the computed rungs.
    """
    tries: Tries = []

    def may_fit(rung: Rung) -> bool:
        if not tries:
            return True
        last, used = tries[-1]
        return fixed + max(0, used - fixed) * growth_factor(last, rung) <= room

    for rung in rungs:
        if tries and may_fit(rungs[-1]):
            return rungs[-1], tries
        used = bytes_used(rung) if may_fit(rung) else None
        if used is None or used > room:
            return (tries[-1][0] if tries else None), tries
        tries.append((rung, used))
    return rungs[-1], tries


def estimate_bytes(rung: Rung, tries: Tries, fixed: int = 0) -> int:
    """Extrapolate a micro-batch's bytes from the first and last computed ones, or `fixed`."""
    if not tries:
        return fixed
    (last, taken), (first, before) = tries[-1], tries[0]
    tokens, fewer = last[0] * last[1], first[0] * first[1]
    if len(tries) == 1:
        fewer, before = 0, min(fixed, taken)
    slope = (taken - before) / max(1, tokens - fewer)
    return taken + round(slope * max(0, rung[0] * rung[1] - tokens))

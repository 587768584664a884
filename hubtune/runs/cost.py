"""Estimate the cost of a training from a few of its steps: time, memory, disk and upload."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from hubtune import guest, temporary
from hubtune.callbacks import Callbacks
from hubtune.devices import device, memory
from hubtune.evaluation.batches import MAX_EXAMPLES
from hubtune.evaluation.inference import Predictor
from hubtune.models import saving
from hubtune.runs import stages
from hubtune.runs.preparation import Prepared
from hubtune.training import checkpoint, memory_search
from hubtune.training.loop import Loop

SAMPLED_STEPS = 200
"""Steps of an epoch whose cost is computed; the others are assumed to cost as much on average."""
TIMED_STEPS = 4
"""Steps that are timed, after a warm-up step of the longest rows, which take the most memory."""


def estimate(prepared: Prepared) -> dict[str, Any]:
    """Load the model, time some steps and a validation, save it, and delete all of it again."""
    guest.save_library_states()
    settings = prepared.settings
    compute = stages.choose_compute(prepared, {}, resume=False)
    with temporary.Folder() as folder, device.device_settings(compute):
        prepared, context = stages.load_model(folder, prepared, compute, resume=False)
        loop = Loop(context, Callbacks())
        try:
            if not settings.plan:
                memory_search.search(loop.state, loop.accumulation)
            step_seconds = time_steps(loop)
            validation_seconds = time_validation(loop)
        finally:
            loop.close()  # gives the model its whole weights again, for the export
        trainable = loop.state.num_trainable
        upload_bytes = measure_export(prepared, loop, folder)
    validations = max(1, round(loop.steps / loop.epoch_steps * (settings.evals_per_epoch or 1)))
    seconds = step_seconds * loop.steps + validation_seconds * validations
    return {
        "steps": loop.steps, "steps_an_epoch": loop.epoch_steps,
        "batch_size": settings.batch_size, "seconds": round(seconds, 3),
        "seconds_an_epoch": round(step_seconds * loop.epoch_steps, 3),
        "seconds_a_validation": round(validation_seconds, 3),
        "peak_memory_bytes": memory.peak(compute.device),
        "disk_bytes": checkpoint.disk_bytes(prepared.num_parameters, trainable),
        "upload_bytes": upload_bytes, "micro_batch": loop.accumulation.batcher.limit,
        "precision": compute.precision, "device": compute.device,
        "parameters": {"total": prepared.num_parameters, "trainable": trainable},
    }


def time_steps(loop: Loop) -> float:
    """Return the seconds of an average step of an epoch."""
    longest = loop.sampler.row_sizes.argsort()[::-1][: loop.context.settings.batch_size]
    train_step(loop, 0, loop.sampler.examples(longest))
    start, tokens = time.perf_counter(), 0.0
    for step in range(1, 1 + TIMED_STEPS):
        items = loop.sampler.examples(loop.sampler.rows(step % loop.steps))
        tokens += count_tokens(loop, items)
        train_step(loop, step % loop.steps, items)
    return (time.perf_counter() - start) / tokens * mean_tokens(loop)


def count_tokens(loop: Loop, items: list[int]) -> float:
    """Return the cost of a step in padded tokens, with the overhead of its micro-batches."""
    batcher, overhead = loop.accumulation.batcher, loop.context.compute.overhead
    return float(sum(batcher.padded_tokens(part) + overhead for part in batcher.divide(items)))


def mean_tokens(loop: Loop) -> float:
    """Return the mean cost of an epoch's steps, computed from its first ones."""
    sampler = loop.sampler
    count = min(loop.epoch_steps, sampler.window_steps, SAMPLED_STEPS)
    costs = [count_tokens(loop, sampler.examples(sampler.rows(step))) for step in range(count)]
    return sum(costs) / count


def train_step(loop: Loop, step: int, items: list[int]) -> None:
    """Train one step on these examples."""
    loop.state.start_step(step)
    loop.forward_backward(step, items)
    loop.state.optimizer_step(step)


def time_validation(loop: Loop) -> float:
    """Return the seconds of a validation, from some of its rows, the longest among them."""
    context, compute = loop.context, loop.context.compute
    encoded = context.validation
    order = encoded.row_sizes().argsort()[::-1]
    chosen = [int(row) for row in order[:: max(1, len(order) // MAX_EXAMPLES)]]
    part, rows = encoded.select_rows(chosen), [context.validation_rows[row] for row in chosen]
    predictor = Predictor(loop.state.module, context.task, context.base, compute.uniform,
                          compute.evaluation)
    with loop.accelerators.full_weights():
        start = time.perf_counter()
        predictor.validate(rows, part)
        seconds = time.perf_counter() - start
    return seconds * float(encoded.sizes.sum()) / max(1.0, float(part.sizes.sum()))


def measure_export(prepared: Prepared, loop: Loop, folder: Path) -> int:
    """Save the model as it would be published, and return its bytes."""
    export = prepared.strategy.export(loop.state.module)
    saved = folder / "model"
    saving.save(export, prepared.base, saved, prepared.origin, prepared.task.files(prepared.base))
    return sum(path.stat().st_size for path in saved.rglob("*") if path.is_file())

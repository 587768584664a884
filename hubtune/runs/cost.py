"""What a training will cost, from steps that are computed here and now: time, memory, disk and upload."""

from __future__ import annotations

import time
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

COUNTED = 200
"""Steps of an epoch whose cost is counted; the others are taken to be like these."""
STEPS = 4
"""Steps that are timed, after one of the longest rows, which takes the most memory and is not counted."""


def measure(prepared: Prepared) -> dict[str, Any]:
    """Load the model, take some steps on it, answer some rows, save it, and forget it all again."""
    guest.keep_libraries()
    compute = stages.planned(prepared, {}, resume=False)
    with temporary.Folder() as folder, device.computing(compute):
        prepared, context = stages.loaded(folder, prepared, compute, resume=False)
        loop = Loop(context, Callbacks())
        try:
            if not prepared.settings.plan:
                memory_search.search(loop.state, loop.accumulation)
            step_seconds = steps(loop)
            validation = answers(prepared, loop)
        finally:
            loop.close()
        loop.accelerators.release(loop.state.optimizer and loop.state.optimizer.optimizer)
        trainable = loop.state.num_trainable
        export = prepared.strategy.export(loop.state.module)
        saving.save(export, prepared.base, folder / "model", prepared.origin, prepared.task.files(prepared.base))
        upload = sum(path.stat().st_size for path in (folder / "model").rglob("*") if path.is_file())
    an_epoch = step_seconds * loop.epoch_steps
    validations = max(1, round(loop.steps / loop.epoch_steps * (prepared.settings.evals_per_epoch or 1)))
    return {
        "steps": loop.steps, "steps_an_epoch": loop.epoch_steps, "batch_size": prepared.settings.batch_size,
        "seconds": round(step_seconds * loop.steps + validation * validations, 3), "seconds_an_epoch": round(an_epoch, 3),
        "seconds_a_validation": round(validation, 3), "peak_memory_bytes": memory.peak(compute.device),
        "disk_bytes": checkpoint.disk_bytes(prepared.parameters, trainable), "upload_bytes": upload,
        "micro_batch": loop.accumulation.cutter.limit, "precision": compute.precision, "device": compute.device,
        "parameters": {"total": prepared.parameters, "trainable": trainable},
    }


def steps(loop: Loop) -> float:
    """Seconds of a step, as an epoch has them on average."""
    longest = loop.sampler.row_sizes.argsort()[::-1][: loop.context.settings.batch_size]
    take_step(loop, 0, loop.sampler.examples(longest))
    begun, cost = time.perf_counter(), 0.0
    for step in range(1, 1 + STEPS):
        items = loop.sampler.examples(loop.sampler.rows(step % loop.steps))
        cost += cost_of(loop, items)
        take_step(loop, step % loop.steps, items)
    return (time.perf_counter() - begun) / cost * mean_cost(loop)


def cost_of(loop: Loop, items: list[int]) -> float:
    """The cost of a step in tokens: padded ones, and the overhead of its micro-batches."""
    cutter = loop.accumulation.cutter
    return float(sum(cutter.padded_tokens(part) + loop.context.compute.overhead for part in cutter.cut(items)))


def mean_cost(loop: Loop) -> float:
    """The same of a step of an epoch on average, from its first steps."""
    count = min(loop.epoch_steps, loop.sampler.window_steps, COUNTED)
    return sum(cost_of(loop, loop.sampler.examples(loop.sampler.rows(step))) for step in range(count)) / count


def take_step(loop: Loop, step: int, items: list[int]) -> None:
    """One step of the optimizer."""
    loop.state.start_step(step)
    loop.forward_backward(step, items)
    loop.state.optimizer_step(step)


def answers(prepared: Prepared, loop: Loop) -> float:
    """Seconds of a validation, from some of its rows, the longest among them."""
    encoded, rows = prepared.encoded["validation"], prepared.data.splits["validation"]
    order = encoded.row_sizes().argsort()[::-1]
    chosen = [int(row) for row in order[:: max(1, len(order) // MAX_EXAMPLES)]]
    part = encoded.select_rows(chosen)
    with loop.accelerators.full_weights():
        begun = time.perf_counter()
        compute = loop.context.compute
        Predictor(loop.state.module, prepared.task, prepared.base, compute.uniform, compute.evaluation).validate(
            [rows[row] for row in chosen], part)
        seconds = time.perf_counter() - begun
    return seconds * float(encoded.sizes.sum()) / max(1.0, float(part.sizes.sum()))

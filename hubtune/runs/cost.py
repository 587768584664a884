"""What a training will cost, from steps that are computed here and now: time, memory, disk and upload."""

from __future__ import annotations

import time
from typing import Any

from hubtune import temporary
from hubtune.callbacks import Callbacks
from hubtune.devices import device, memory
from hubtune.evaluation import inference
from hubtune.models import saving
from hubtune.runs import stages
from hubtune.runs.preparation import Prepared
from hubtune.training import autotune, checkpoint
from hubtune.training.loop import Loop

STEPS = 4
"""Steps that are timed, after one of the longest rows, which takes the most memory and is not counted."""


def measure(prepared: Prepared) -> dict[str, Any]:
    """Load the model, take some steps on it, answer some rows, save it, and forget it all again."""
    compute = stages.planned(prepared, {}, resume=False)
    with temporary.Folder() as folder, device.computing(compute):
        prepared, context = stages.loaded(folder, prepared, compute, resume=False)
        loop = Loop(context, Callbacks())
        try:
            if not prepared.settings.plan:
                autotune.measure(loop.state)
            step_seconds = steps(loop)
            validation = answers(prepared, loop)
        finally:
            loop.close()
        loop.state.vocabularies.release()
        trainable = loop.state.trainable
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
        "micro_batch": loop.state.limit, "precision": compute.precision, "device": compute.device,
        "parameters": {"total": prepared.parameters, "trainable": trainable},
    }


def steps(loop: Loop) -> float:
    """Seconds of a step, as an epoch has them on average."""
    longest = loop.row_sizes.argsort()[::-1][: loop.context.settings.batch_size]
    taken(loop, 0, [example for row in longest for example in loop.rows_examples[int(row)]])
    begun, cost = time.perf_counter(), 0.0
    for step in range(1, 1 + STEPS):
        items = items_of(loop, step % loop.steps)
        cost += costs(loop, items)
        taken(loop, step % loop.steps, items)
    return (time.perf_counter() - begun) / cost * autotune.cost(loop)


def items_of(loop: Loop, step: int) -> list[int]:
    """The examples of a step."""
    return [example for row in loop.rows_of(step) for example in loop.rows_examples[int(row)]]


def costs(loop: Loop, items: list[int]) -> float:
    """What a step costs, in tokens: its padded ones, and the overhead of its micro-batches."""
    cuts = loop.state.cuts(items)
    return float(sum(loop.state.places(part) + loop.context.compute.overhead for part in cuts))


def taken(loop: Loop, step: int, items: list[int]) -> None:
    """One step of the optimizer."""
    loop.state.begin(step)
    loop.state.learn(step, 0, items)
    loop.state.move(step)


def answers(prepared: Prepared, loop: Loop) -> float:
    """Seconds of a validation, from some of its rows, the longest among them."""
    encoded, rows = prepared.encoded["validation"], prepared.data.splits["validation"]
    order = encoded.row_sizes().argsort()[::-1]
    chosen = [int(row) for row in order[:: max(1, len(order) // inference.MOST)]]
    part = encoded.select_rows(chosen)
    with loop.state.vocabularies.whole():
        begun = time.perf_counter()
        inference.answer(loop.state.module, prepared.task, prepared.base, [rows[row] for row in chosen], part, real=False,
                        losses=True, uniform=loop.context.compute.uniform, limit=loop.context.compute.evaluation)
        seconds = time.perf_counter() - begun
    return seconds * float(encoded.sizes.sum()) / max(1.0, float(part.sizes.sum()))

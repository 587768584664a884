"""The stages that cost compute: train, score, save, and prove what was saved."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubtune import guest
from hubtune.callbacks import Callbacks
from hubtune.contract import CONTRACT, ReferenceTask
from hubtune.contract.validation import checked
from hubtune.data.row_batches import BatchedRows
from hubtune.devices import device, fp64, host_lock, memory, processes, sharding
from hubtune.evaluation import inference, loss_checks, metrics, model_checks, verification
from hubtune.evaluation.inference import Predictor
from hubtune.hub import card
from hubtune.hub.origin import fetch
from hubtune.models import loading, saving
from hubtune.record import RECORD, write_record
from hubtune.runs.preparation import Prepared
from hubtune.training import checkpoint, memory_search
from hubtune.training.context import TrainingContext
from hubtune.training.loop import Loop, Outcome
from hubtune.training.state import prepare_module

if TYPE_CHECKING:
    from torch.nn import Module


def finish(folder: Path, prepared: Prepared, record: dict[str, Any], callbacks: Callbacks, *, resume: bool) -> None:
    """Train, score, save and prove; the folder is then a finished run. Of several processes, the first writes."""
    guest.keep_libraries()
    processes.join(device.kind())
    host_lock.clear()
    try:
        compute = processes.together(planned(prepared, record, resume) if processes.is_first() else None)
        assert compute is not None
        with device.computing(compute):
            outcome, compute = trained(folder, prepared, record, compute, callbacks, resume=resume)
            if not processes.is_first():
                return
            record |= saved_and_proven(folder, prepared, outcome, record, compute, callbacks)
    finally:
        processes.leave()
    record["peak_memory_bytes"] = memory.peak(compute.device)
    record["state"] = "trained"
    write_record(folder, record)
    (folder / "model" / "README.md").write_text(card.render(record), encoding="utf-8")
    for made in ("checkpoints", "features"):
        shutil.rmtree(folder / made, ignore_errors=True)  # the result is in model/, and these are many times its size


def planned(prepared: Prepared, record: Mapping[str, Any], resume: bool) -> device.Compute:
    """How steps are computed: as the run began, as another run did, or as is measured now; what only a model can tell is open."""
    if resume:
        known = {item.name for item in dataclasses.fields(device.Compute)}  # another version may have written others
        return device.Compute(**{name: value for name, value in record["compute"].items() if name in known})
    if prepared.settings.plan:
        return device.plan_of(prepared.settings.plan, prepared.settings.precision)
    compute = device.choose(prepared.settings.precision, prepared.settings.kernels)
    return dataclasses.replace(compute, recompute=prepared.settings.gradient_checkpointing == "on")


def trained(
    folder: Path, prepared: Prepared, record: dict[str, Any], compute: device.Compute, callbacks: Callbacks, *, resume: bool
) -> tuple[Outcome, device.Compute]:
    """Train and score, in every process; what was found goes into the record."""
    prepared, context = loaded(folder, prepared, compute, resume)
    with contextlib.closing(Loop(context, callbacks)) as loop:
        if not resume:
            begun(folder, prepared, record, loop)
        outcome = loop.run()
    compute = context.compute
    record |= {
        "steps": outcome.steps, "epochs": round(outcome.epochs, 4), "best_step": outcome.best_step,
        "stopped_early": outcome.stopped_early, "acceleration": outcome.acceleration, "seconds": round(outcome.seconds, 3),
        "parameters": {"total": prepared.parameters, "trainable": outcome.num_trainable},
        "happened": {**outcome.throughput, "peak_memory_bytes": memory.peak(compute.device)},
        "processes": {"count": processes.world(), "shard": "full" if prepared.shard else "none"},
        **scored(prepared, outcome.model, compute, callbacks),
    }
    if prepared.shard:
        outcome = dataclasses.replace(outcome, model=in_one(prepared, context, outcome))
    return outcome, compute


def begun(folder: Path, prepared: Prepared, record: dict[str, Any], loop: Loop) -> None:
    """Before step 0: find out what memory suffices for, unless another run's plan says so, and record how steps are computed."""
    context, callbacks = loop.context, loop.callbacks
    if not prepared.settings.plan:
        record["expected"] = {"peak_memory_bytes": memory_search.search(loop.state, loop.accumulation)}
    record["compute"] = context.compute.as_dict()
    if context.compute.uniform:
        callbacks.on_warning("this model's outputs change with padding, so batches hold rows of equal length.")
    if context.compute.recompute and prepared.settings.gradient_checkpointing == "auto":
        callbacks.on_info("Gradient checkpointing is on: memory is short (steps take about a third longer).")
    if processes.is_first():
        write_record(folder, record)


def in_one(prepared: Prepared, context: TrainingContext, outcome: Outcome) -> Module:
    """The trained module with whole weights, in the first process: what was learnt, in the base as it is loaded.

    FSDP knows no way back from parts; a strategy makes of the same base what it made before.
    """
    learnt = {name: sharding.whole(value.detach()).cpu() for name, value in checkpoint.moving(outcome.model, outcome.trainable).items()}
    if not processes.is_first():
        return outcome.model
    found = loading.load(prepared.origin, prepared.base, prepared.task, prepared.strategy, prepared.settings.seed)
    state = prepared.strategy.state()
    module = prepare_module(dataclasses.replace(context, model=found.model, newly_initialized=found.newly_initialized), outcome.plan)
    prepared.strategy.restore(state)
    checkpoint.put_back(module, learnt, outcome.trainable)
    return module


def loaded(folder: Path, prepared: Prepared, compute: device.Compute, resume: bool) -> tuple[Prepared, TrainingContext]:
    """The model with its weights, and all that the loop needs; examples with what the model as it is says of them."""
    found = loading.load(prepared.origin, prepared.base, prepared.task, prepared.strategy, prepared.settings.seed)
    if not resume:
        alone = dataclasses.replace(compute, device="cpu") if prepared.shard else compute  # whole weights may not fit elsewhere
        seen = model_checks.check_model(found.model, prepared.task, prepared.base, prepared.encoded["train"], alone,
                                 may_fall_back=prepared.settings.precision == "auto")
        compute = dataclasses.replace(seen, device=compute.device)
    elif compute.precision == "fp64":
        fp64.model(found.model)
    if isinstance(prepared.task, ReferenceTask):
        prepared = dataclasses.replace(prepared, encoded={
            split: inference.add_reference_outputs(found.model, prepared.task, prepared.base, encoded, compute.uniform)
            for split, encoded in prepared.encoded.items()
        })
    if not resume:
        loss_checks.check_loss_is_sum(found.model, prepared.task, prepared.base, prepared.encoded["train"])
    return prepared, TrainingContext(
        prepared.task, prepared.strategy, prepared.base, found.model, found.newly_initialized, prepared.encoded["train"],
        prepared.encoded["validation"], prepared.data.splits["validation"], prepared.settings, compute, folder, resume, prepared.windows,
        prepared.shard,
    )


def scored(prepared: Prepared, model: Module, compute: device.Compute, callbacks: Callbacks) -> dict[str, Any]:
    """Metrics, intervals and reports on every split but train."""
    task, base = prepared.task, prepared.base
    found: dict[str, dict[str, Any]] = {"metrics": {}, "intervals": {}, "reports": {}}
    for split, encoded in prepared.encoded.items():
        if split == "train":
            continue
        callbacks.on_progress_start(f"evaluating {split}", len(encoded.examples))
        listed = list(BatchedRows(prepared.data.splits[split]))
        predictor = Predictor(model, task, base, compute.uniform, compute.evaluation, processes.state(), callbacks.on_progress)
        predictions = predictor.predict(listed, encoded)
        callbacks.on_progress_end()
        result = metrics.evaluate(task, predictions, listed, base)
        for name, key in (("metrics", "metrics"), ("intervals", "intervals"), ("reports", "report")):
            found[name][split] = result[key]
    return found


def saved_and_proven(
    folder: Path, prepared: Prepared, outcome: Outcome, record: Mapping[str, Any], compute: device.Compute,
    callbacks: Callbacks,
) -> dict[str, Any]:
    """Write the plain model for the Hub, and compare it in a fresh process with the one that was trained."""
    seen = folder / "proof.safetensors"
    verification.record_outputs(
        outcome.model, prepared.task, prepared.base, prepared.encoded["validation"], seen, compute.uniform
    )
    export = checked(prepared.strategy, "export", prepared.strategy.export(outcome.model))
    place = folder / "model"
    shutil.rmtree(place, ignore_errors=True)
    saving.save(export, prepared.base, place, prepared.origin, prepared.task.files(prepared.base))
    (place / RECORD).write_text(json.dumps({
        "hubtune": version("hubtune"), "contract": CONTRACT,
        "task": {"name": prepared.task.name, "options": dict(prepared.recipe.task.options), "plugin": record["plugins"]["task"]},
        "strategy": {"name": prepared.strategy.name, "options": dict(prepared.recipe.strategy.options)},
        "facts": record["facts"], "columns": record["data"]["columns"], "data": record["data"]["fingerprint"][:16],
        "loads_with": export.loads_with, "limit": record["lengths"]["limit"], "base": {name: record["base"][name] for name in ("repo", "commit", "local")},
    }, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    found = None
    if prepared.settings.verify:
        alone = "transformers and PEFT" if export.loads_with == "peft" else "transformers"
        callbacks.on_info(f"Verifying the saved model in a clean process ({alone} only)")
        origin = prepared.origin
        found = verification.verify_model(verification.SavedModel(
            place, prepared.task.model, export.loads_with, seen, fetch(origin, [*origin.small, *origin.weights]),
            record["config"],
        ))
    return {
        "proof": found, "loads_with": export.loads_with,
        "base_model_relation": "adapter" if export.loads_with == "peft" else "finetune",
    }

"""The stages of a run that cost compute: load the model, train, evaluate, save and verify."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubtune import guest
from hubtune.callbacks import Callbacks
from hubtune.contract import ReferenceTask
from hubtune.devices import device, fp64, host_lock, memory, processes, sharding
from hubtune.devices.clean_python import CleanPython
from hubtune.devices.device import Compute
from hubtune.evaluation import scoring, verification
from hubtune.evaluation.inference import Predictor, add_reference_outputs
from hubtune.evaluation.loss_checks import check_loss_is_sum
from hubtune.evaluation.model_checks import check_model
from hubtune.hub import card
from hubtune.models import loading
from hubtune.record import delete_working_files, write_record
from hubtune.runs import saved_model, seal
from hubtune.runs.page import kept, page
from hubtune.runs.preparation import Prepared
from hubtune.training import checkpoint, memory_search
from hubtune.training.context import TrainingContext
from hubtune.training.loop import Loop
from hubtune.training.progress import Outcome
from hubtune.training.state import prepare_module

if TYPE_CHECKING:
    from torch.nn import Module


def run_stages(
    folder: Path, prepared: Prepared, record: dict[str, Any], callbacks: Callbacks,
    clean: CleanPython, *, resume: bool,
) -> None:
    """Run all stages; the folder is then a finished run.

    Every process loads, trains and evaluates; the first one alone writes.

    Args:
        record: the contents of `run.json`, which the stages complete; `timings` are `Timings`.
        clean: the process of the proof. It is started when training ends, if it does not wait
            already, so that it imports while the model is scored.
        resume: go on from the newest checkpoint, computing as the run began.
    """
    memory.resume_collection()
    guest.save_library_states()
    processes.join(device.kind())
    host_lock.remove_shared()
    try:
        compute = choose_compute(prepared, record, resume)
        with device.device_settings(compute):
            callbacks.on_info("Loading the weights")
            prepared, context = load_model(folder, prepared, compute, resume)
            record["timings"].mark("loading")
            outcome = train(context, record, callbacks, starting(clean, prepared))
            record |= describe_training(prepared, context, outcome)
            memory.release_free_memory(context.compute.device)
            record["timings"].mark("training")
            if prepared.settings.verify and processes.is_first():
                clean.start(verification.modules_of(prepared.base, prepared.strategy.loads_with))
            export = saved_model.rounded(prepared, outcome.model)
            trained = export.root if export else outcome.model
            predictor = Predictor(
                trained, prepared.task, prepared.base, context.compute.uniform,
                context.compute.evaluation, processes.partial_state(), callbacks.on_progress)
            record |= scoring.evaluate(predictor, prepared.data.rows, prepared.data.encoded, callbacks,
                                       observer(folder, prepared, record, callbacks),
                                       outcome.predictions)
            record["timings"].mark("evaluation")
            model = gather_weights(prepared, context, outcome) if prepared.shard else trained
            if not processes.is_first():
                return
            record |= saved_model.save_and_verify(
                folder, prepared, context.compute, model, record, callbacks, clean, export)
    finally:
        processes.destroy_group()
    record |= {"peak_memory_bytes": memory.peak(compute.device), "state": "trained"}
    # The record last: a run that could not write its card is resumed.
    (folder / "model" / "README.md").write_text(card.render(record), encoding="utf-8")
    write_record(folder, {**record, "seal": seal.make(folder, record)})
    page.write_if_possible(folder, record, callbacks)
    delete_working_files(folder)


def observer(
    folder: Path, prepared: Prepared, record: Mapping[str, Any], callbacks: Callbacks
) -> scoring.Observe:
    """Return what keeps the predictions that the run's page shows, in the first process alone."""
    if not processes.is_first():
        return scoring.ignore
    data = prepared.data
    with_rows = record["recipe"].get("report", {}).get("rows", True)
    return kept.observer(folder, prepared.task, prepared.base, list(data.rows),
                         data.encoded["train"].sizes, callbacks, with_rows=with_rows)


def choose_compute(prepared: Prepared, record: Mapping[str, Any], resume: bool) -> Compute:
    """Choose how steps are computed, in the first process for all.

    A resumed run computes as it began, `train.plan` as another run did. Model and memory may
    change the choice (`load_model`, `fit_to_memory`).
    """
    compute = None
    if processes.is_first():
        settings = prepared.settings
        if resume:
            known = {field.name for field in dataclasses.fields(Compute)}  # 0.1 wrote others
            found = record["compute"].items()
            compute = Compute(**{name: value for name, value in found if name in known})
        elif settings.plan:
            compute = device.load_plan(settings.plan, settings.precision)
        else:
            compute = device.choose(settings.precision, settings.kernels)
            recompute = settings.gradient_checkpointing == "on"
            compute = dataclasses.replace(compute, recompute=recompute)
    compute = processes.broadcast(compute)
    assert compute is not None
    return compute


# -------------------------------------------------------------------------------------- load


def load_model(
    folder: Path, prepared: Prepared, compute: Compute, resume: bool
) -> tuple[Prepared, TrainingContext]:
    """Load the weights, and check model and loss; returns all that training needs.

    Examples of a task with a reference model get its outputs.
    """
    task, base, data = prepared.task, prepared.base, prepared.data
    loaded = loading.load(prepared.origin, base, task, prepared.strategy, prepared.settings.seed,
                          num_embeddings=prepared.num_embeddings)
    train = data.encoded["train"]
    if not resume:
        # Before they are sharded, whole weights may not fit the device.
        place = "cpu" if prepared.shard else compute.device
        checked_on = dataclasses.replace(compute, device=place)
        found = check_model(loaded.model, task, base, train, checked_on,
                            may_fall_back=prepared.settings.precision == "auto")
        compute = dataclasses.replace(found, device=compute.device)
    elif compute.precision == "fp64":
        fp64.convert_model(loaded.model)
    if isinstance(task, ReferenceTask):
        data = dataclasses.replace(data, encoded={
            split: add_reference_outputs(loaded.model, task, base, encoded, compute.uniform)
            for split, encoded in data.encoded.items()
        })
        prepared = dataclasses.replace(prepared, data=data)
    if not resume:
        check_loss_is_sum(loaded.model, task, base, data.encoded["train"])
    return prepared, TrainingContext(
        task=task, strategy=prepared.strategy, base=base, model=loaded.model,
        newly_initialized=loaded.newly_initialized, train=data.encoded["train"],
        validation=data.encoded["validation"], validation_rows=data.rows["validation"],
        settings=prepared.settings, compute=compute, folder=folder, resume=resume,
        windows=data.windows, shard=prepared.shard, row_numbers=data.row_numbers,
    )


# ------------------------------------------------------------------------------------- train


def starting(clean: CleanPython, prepared: Prepared) -> Callable[[], None] | None:
    """Return what lets the process of the proof import while the last steps run; None without proof."""
    if not prepared.settings.verify:
        return None
    modules = verification.modules_of(prepared.base, prepared.strategy.loads_with)
    return functools.partial(clean.start_early, modules)


def train(context: TrainingContext, record: dict[str, Any], callbacks: Callbacks,
          on_last_seconds: Callable[[], None] | None = None) -> Outcome:
    """Train from step 0, or on from the newest checkpoint. on_last_seconds: see `Loop`."""
    with contextlib.closing(Loop(context, callbacks, on_last_seconds)) as loop:
        if not context.resume:
            fit_to_memory(loop, record)
            record["timings"].mark("memory_search")
            report_compute(context, callbacks)
            record["compute"] = context.compute.as_dict()
            if processes.is_first():
                write_record(context.folder, record)
        return loop.run()


def fit_to_memory(loop: Loop, record: dict[str, Any]) -> None:
    """Search the largest micro-batch that fits in memory, unless another run's plan gives it."""
    if not loop.context.settings.plan:
        peak = memory_search.search(loop.state, loop.accumulation)
        record["expected"] = {"peak_memory_bytes": peak}


def report_compute(context: TrainingContext, callbacks: Callbacks) -> None:
    """Report what the model and the memory make slower than usual."""
    if context.compute.uniform:
        callbacks.on_warning("this model's outputs change with padding, so batches hold rows of "
                             "equal length.")
    if context.compute.recompute and context.settings.gradient_checkpointing == "auto":
        callbacks.on_info("Gradient checkpointing is on: memory is short (steps take about a "
                          "third longer).")


def describe_training(
    prepared: Prepared, context: TrainingContext, outcome: Outcome
) -> dict[str, Any]:
    """Describe the training for `run.json`."""
    peak = memory.peak(context.compute.device)
    return {
        "steps": outcome.steps, "epochs": round(outcome.epochs, 4), "best_step": outcome.best_step,
        "stopped_early": outcome.stopped_early, "acceleration": outcome.acceleration,
        "seconds": round(outcome.seconds, 3),
        "parameters": {"total": prepared.num_parameters, "trainable": outcome.num_trainable},
        "happened": {**outcome.throughput, "peak_memory_bytes": peak},
        "processes": {
            "count": processes.world_size(), "shard": "full" if prepared.shard else "none",
        },
    }


def gather_weights(prepared: Prepared, context: TrainingContext, outcome: Outcome) -> Module:
    """Return the trained module with whole weights in the first process; sharded in the others.

    FSDP cannot unshard a module in place, so the trained weights are put into one that the strategy
    prepares from the base model again.
    """
    trained = checkpoint.trained_tensors(outcome.model, outcome.trainable)
    weights = {name: sharding.full_tensor(value.detach()).cpu() for name, value in trained.items()}
    if not processes.is_first():
        return outcome.model
    strategy = prepared.strategy
    loaded = loading.load(
        prepared.origin, prepared.base, prepared.task, strategy, prepared.settings.seed,
        num_embeddings=prepared.num_embeddings)
    state = strategy.state()
    whole = dataclasses.replace(
        context, model=loaded.model, newly_initialized=loaded.newly_initialized)
    module = prepare_module(whole, outcome.plan)
    strategy.restore(state)
    checkpoint.restore_tensors(module, weights, outcome.trainable)
    return module

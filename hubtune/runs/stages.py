"""The stages of a run that cost compute: load the model, train, evaluate, save and verify."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import shutil
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubtune import guest
from hubtune.callbacks import Callbacks
from hubtune.contract import CONTRACT, Base, Export, ReferenceTask, Task
from hubtune.contract.validation import checked
from hubtune.devices import device, fp64, host_lock, memory, processes, sharding
from hubtune.devices.clean_python import CleanPython
from hubtune.devices.device import Compute
from hubtune.evaluation import scoring, user_calls, verification
from hubtune.evaluation.inference import Predictor, add_reference_outputs
from hubtune.evaluation.loss_checks import check_loss_is_sum
from hubtune.evaluation.model_checks import check_model
from hubtune.hub import card
from hubtune.hub.origin import fetch
from hubtune.models import loading, saving
from hubtune.models.heads import choice, publishing
from hubtune.record import RECORD, delete_working_files, write_record
from hubtune.runs import seal
from hubtune.runs.page import kept, page, plots
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
            predictor = Predictor(
                outcome.model, prepared.task, prepared.base, context.compute.uniform,
                context.compute.evaluation, processes.partial_state(), callbacks.on_progress)
            record |= scoring.evaluate(predictor, prepared.data.rows, prepared.data.encoded, callbacks,
                                       observer(folder, prepared, record, callbacks))
            record["timings"].mark("evaluation")
            model = gather_weights(prepared, context, outcome) if prepared.shard else outcome.model
            if not processes.is_first():
                return
            record |= save_and_verify(
                folder, prepared, context.compute, model, record, callbacks, clean)
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


# --------------------------------------------------------------------------- save and verify


def save_and_verify(
    folder: Path, prepared: Prepared, compute: Compute, model: Module, record: Mapping[str, Any],
    callbacks: Callbacks, clean: CleanPython,
) -> dict[str, Any]:
    """Save the model for the Hub, and verify in a clean process that it is the trained one.

    clean: asks the saved model while this process asks the trained one.
    """
    task, base, data = prepared.task, prepared.base, prepared.data
    recorded, calls = folder / "proof.safetensors", folder / "proof"
    callbacks.on_info("Saving the model")
    verification.record_outputs(
        model, task, base, data.encoded["validation"], recorded, compute.uniform)
    export = save_model(folder / "model", prepared, model, record)
    processor, is_asked = processor_class(task, base), user_calls.is_asked(export.root)
    asked = user_calls.record_calls(
        task, base, data.rows["validation"], data.encoded["validation"], calls) if is_asked else 0
    record["timings"].mark("saving")
    proof = None
    with contextlib.ExitStack() as stack:
        if prepared.settings.verify:
            libraries = "transformers and PEFT" if export.loads_with == "peft" else "transformers"
            callbacks.on_info(f"Verifying the saved model in a clean process ({libraries} only)")
            origin = prepared.origin
            saved = verification.SavedModel(
                folder / "model", task.model, export.loads_with, recorded,
                fetch(origin, [*origin.small, *origin.weights]), record["config"],
                calls if asked else None, processor, task.pipeline_tag)
            running = stack.enter_context(
                verification.Verification([saved], clean, shares_threads=True))
        asked = asked and user_calls.record_answers(
            export.root, task, base, calls, folder / "model")
        if not asked and type(task).user_call is not Task.user_call:
            callbacks.on_warning("transformers could not be asked as users ask the model, so only "
                                 "its outputs for recorded inputs are compared.")
        describe_model(folder / "model", prepared, export, record)
        if prepared.settings.verify:
            plots.warm_up()  # this process would only wait
            callbacks.on_info("Comparing its outputs with those of the trained model")
            proof = running.result(dataclasses.replace(saved, calls=calls if asked else None))
    if not asked:
        shutil.rmtree(calls, ignore_errors=True)
    record["timings"].mark("verification")
    return {
        "proof": proof, "loads_with": export.loads_with, "processor": processor,
        "base_model_relation": "adapter" if export.loads_with == "peft" else "finetune",
    }


def processor_class(task: Task[Any], base: Base) -> str:
    """Return the name of the transformers class that loads the published processor."""
    return "AutoProcessor" if hasattr(base.processor, "tokenizer") else task.processor


def save_model(
    folder: Path, prepared: Prepared, model: Module, record: Mapping[str, Any]
) -> Export:
    """Save the exported model and its processor."""
    task, strategy, base = prepared.task, prepared.strategy, prepared.base
    export: Export = checked(strategy, "export", strategy.export(model))
    if choice.is_head(base.config):
        export = publishing.with_code(export, task.model)
    if prepared.origin.runs_code:
        export = dataclasses.replace(export, loads_with="code")  # which is saved beside the weights
    shutil.rmtree(folder, ignore_errors=True)
    if record["decisions"] and export.loads_with != "peft":  # a PEFT folder has no configuration of a model
        export = dataclasses.replace(export, config={**export.config, "hubtune": record["decisions"]})
    saving.save(export, base, folder, prepared.origin, task.files(base))
    return export


def describe_model(
    folder: Path, prepared: Prepared, export: Export, record: Mapping[str, Any]
) -> None:
    """Write beside the saved model what hubtune needs to predict with it, and its seal."""
    task, base = prepared.task, prepared.base
    made = user_calls.made_answers(export.root, task, base, folder)
    recipe = record["recipe"]
    options = {kind: {name: value for name, value in recipe[kind].items() if name != "name"}
               for kind in ("task", "strategy", "loss") if kind in recipe}
    contents = {
        "hubtune": version("hubtune"), "contract": CONTRACT,
        "task": {
            "name": task.name, "options": options["task"], "plugin": record["plugins"]["task"],
        },
        "strategy": {"name": prepared.strategy.name, "options": options["strategy"]},
        "loss": recipe.get("loss") and {"name": recipe["loss"]["name"], "options": options["loss"]},
        "metric": record["task"]["metric"], "metrics": record["plugins"].get("metrics", {}),
        "facts": record["facts"], "columns": record["data"]["columns"],
        "data": record["data"]["fingerprint"][:16], "loads_with": export.loads_with,
        "limit": record["lengths"]["limit"], "decisions": record["decisions"],
        "base": {name: record["base"][name] for name in ("repo", "commit", "local")},
        "recipe": card.portable_tables({**record, "loads_with": export.loads_with}),
        "versions": record["versions"],
    }
    contents["seal"] = {
        "files": seal.hash_folder(folder), "record": seal.hash_record(contents),
        "results": seal.finite(record["metrics"]), "answers": made,
        "processor": processor_class(task, base), "config": record["config"],
    }
    text = json.dumps(contents, indent=2, ensure_ascii=False) + "\n"
    (folder / RECORD).write_text(text, encoding="utf-8")

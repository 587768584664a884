"""The last stage of a run: save the trained model for the Hub, verify it, and describe it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubtune.callbacks import Callbacks
from hubtune.contract import CONTRACT, Base, Export, Task
from hubtune.contract.validation import checked
from hubtune.devices.clean_python import CleanPython
from hubtune.devices.device import Compute
from hubtune.errors import RecipeError
from hubtune.evaluation import user_calls, verification
from hubtune.hub import card
from hubtune.hub.origin import fetch
from hubtune.models import added_modules, saving
from hubtune.models.heads import choice, publishing
from hubtune.record import RECORD
from hubtune.runs import seal
from hubtune.runs.page import plots
from hubtune.runs.preparation import Prepared

if TYPE_CHECKING:
    from torch.nn import Module


def save_and_verify(
    folder: Path, prepared: Prepared, compute: Compute, model: Module, record: Mapping[str, Any],
    callbacks: Callbacks, clean: CleanPython, export: Export | None = None,
) -> dict[str, Any]:
    """Save the model for the Hub, and verify in a clean process that it is the trained one.

    clean: asks the saved model while this process asks the trained one.
    export: of `rounded`, with the model.
    """
    task, base, data = prepared.task, prepared.base, prepared.data
    recorded, calls = folder / "proof.safetensors", folder / "proof"
    callbacks.on_info("Saving the model")
    verification.record_outputs(
        model, task, base, data.encoded["validation"], recorded, compute.uniform)
    export = save_model(folder / "model", prepared, export or exported(prepared, model), record)
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


def exported(prepared: Prepared, model: Module) -> Export:
    """Return the trained model as its strategy publishes it."""
    export: Export = checked(prepared.strategy, "export", prepared.strategy.export(model))
    return export


def rounded(prepared: Prepared, model: Module) -> Export | None:
    """Return the export of a trained model with its weights rounded to the published format; None where that is of training.

    What is scored and proven is the export then.
    """
    if prepared.dtype is None:
        return None
    export = exported(prepared, model)
    if export.loads_with == "peft":
        raise RecipeError(f"'{prepared.strategy.name}' is published as an adapter of this model, whose weights are few and stay in float32.",
                          hint="Leave out publish.dtype, or choose another strategy: --strategy lora")
    saving.round_weights(export.root, prepared.dtype)
    return export


def save_model(
    folder: Path, prepared: Prepared, export: Export, record: Mapping[str, Any]
) -> Export:
    """Save the exported model and its processor."""
    task, base = prepared.task, prepared.base
    export = added_modules.with_code(export, task.model, base.config)
    if choice.is_head(base.config):
        export = publishing.with_code(export, task.model)
    if prepared.origin.runs_code:
        export = dataclasses.replace(export, loads_with="code")  # which is saved beside the weights
    shutil.rmtree(folder, ignore_errors=True)
    if record["decisions"] and export.loads_with != "peft":  # a PEFT folder has no configuration of a model
        export = dataclasses.replace(export, config={**export.config, "hubtune": record["decisions"]})
    saving.save(export, base, folder, prepared.origin, task.files(base), prepared.dtype)
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

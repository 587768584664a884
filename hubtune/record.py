"""The folder of a run and the `run.json` in it: everything needed to run it again. Knows no training."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hubtune.errors import RecipeError, ResumeError
from hubtune.other_names import RENAMED, RENAMED_VALUES
from hubtune.recipe import Recipe

RECORD = "hubtune.json"
"""The file beside the weights that says which task the model answers, with its options and facts."""
PACKAGES = ("hubtune", "torch", "transformers", "accelerate", "huggingface-hub", "datasets", "peft", "safetensors")


def new_folder(made: Recipe, out: str | Path | None, overwrite: bool, look_only: bool = False) -> Path:
    """Where a run goes. A folder with something in it is refused, or emptied if it is a run and the user says so."""
    if out is None:
        name = f"{made.task.name}-{made.model.partition('@')[0].rstrip('/').split('/')[-1]}-{made.strategy.name}"
        number = next(n for n in range(1, 10**6) if not Path("runs", f"{name}-{n}").exists())
        return Path("runs", f"{name}-{number}")
    folder = Path(out)
    if folder.is_file():
        raise RecipeError(f"'{out}' is a file; --out names a folder.")
    if not folder.is_dir() or not any(folder.iterdir()):
        return folder
    is_run = (folder / "run.json").is_file()
    if not overwrite:
        unfinished = is_run and read_record(folder)["state"] == "started"
        raise RecipeError(
            f"the folder '{out}' is not empty" + (": it holds a run that stopped." if unfinished else "."),
            hint=f"Go on with it: hubtune train --resume {out}\nReplace it: the same command with --overwrite\n"
            "Or choose another --out.",
        )
    if not is_run:
        raise RecipeError(f"'{out}' is no run, so --overwrite does not delete it.", hint="Choose another --out.")
    if not look_only:
        shutil.rmtree(folder)
    return folder


def read_record(folder: Path) -> dict[str, Any]:
    """The contents of a run's `run.json`."""
    path = Path(folder) / "run.json"
    try:
        return migrate(dict(json.loads(path.read_text(encoding="utf-8"))))
    except FileNotFoundError:
        raise ResumeError(f"'{folder}' is no run: it has no run.json.", hint="Runs are made by: hubtune train") from None
    except ValueError:
        raise ResumeError("it cannot be read as JSON.", where=str(path), hint="Train anew with --overwrite.") from None


def parse_model_record(text: str) -> dict[str, Any]:
    """The contents of `hubtune.json`, as this version writes them; empty where it is no record of hubtune."""
    record = json.loads(text)
    return migrate(dict(record)) if isinstance(record, dict) else {}


REMOVED = ("padding_free", "compile")
"""Settings of 0.1 without a successor: their accelerators are gone."""


def migrate(record: dict[str, Any]) -> dict[str, Any]:
    """Return a `run.json` or `hubtune.json` of hubtune 0.1 as this version writes it; one of this version as it is."""
    recipe = record.get("recipe", {})
    for parent, name in ((recipe, "train"), (record, "settings")):
        if name in parent:
            settings = {RENAMED.get(key, key): value for key, value in parent[name].items()}
            parent[name] = {key: current_value(f"train.{key}", value) for key, value in settings.items() if key not in REMOVED}
    for table in (recipe.get("task", {}), record.get("task", {}).get("options", {}), record.get("facts", {})):
        if "kind" in table:
            table["kind"] = current_value("task.kind", table["kind"])
    return record


def current_value(key: str, value: Any) -> Any:
    """A value of hubtune 0.1 by its name in this version."""
    return RENAMED_VALUES.get(key, {}).get(value, value) if isinstance(value, str) else value


def migrate_checkpoint(state: dict[str, Any]) -> dict[str, Any]:
    """Return the `state.json` of a checkpoint of hubtune 0.1 as this version writes it; one of this version as it is."""
    if "learner" not in state:
        return state
    old = state["learner"]
    training = {name: old[name] for name in ("strategy", "optimizer", "scaler", "phase")} | {"accelerators": {
        "embedding_pruning": {"used": bool(old["vocabularies"]), "kept": old["vocabularies"]},
        "feature_cache": {"used": old.get("features", False)},
    }}
    return {**state, "training": training, "limit": old["limit"]}


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write `run.json` whole or not at all."""
    aside = folder / f".run.json.{os.getpid()}"
    aside.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    aside.replace(folder / "run.json")


def shown(folder: Path) -> dict[str, Any]:
    """What a run is: how it computes, what it expected of that before step 0, and what happened; these are null until they are known."""
    found = read_record(folder)
    return {
        "run": str(folder), "state": found["state"], "task": found["task"]["name"], "strategy": found["strategy"]["name"],
        "base": {name: found["base"][name] for name in ("repo", "commit")}, "plan": found["plan"], "settings": found["settings"],
        "compute": found.get("compute"), "expected": found.get("expected"), "happened": found.get("happened"),
        "metrics": found.get("metrics"), "seconds": found.get("seconds"),
    }


def versions() -> dict[str, str]:
    """The packages that a result depends on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

"""Run records: the folder of a run, and its `run.json` with all that is needed to repeat it."""

from __future__ import annotations

import json
import platform
import shlex
import shutil
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hubtune.errors import ModelError, RecipeError, ResumeError
from hubtune.files import read_json, write_atomically
from hubtune.other_names import RENAMED, RENAMED_VALUES
from hubtune.recipe import Recipe

LOCK = ".lock"
"""The file in a run's folder that is locked while a process works on the run."""
RECORD = "hubtune.json"
"""The file beside the weights with the task, its options and facts."""
PACKAGES = ("hubtune", "torch", "transformers", "accelerate", "huggingface-hub", "datasets", "peft",
            "safetensors")


class Timings(dict[str, float]):
    """Wall seconds of the stages of a run by name, in their order: `timings` of `run.json`.

    Of a resumed run, those since it was resumed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.last = time.monotonic()

    def mark(self, stage: str) -> None:
        """Set down that a stage has ended, which began when the one before it ended."""
        now = time.monotonic()
        self[stage] = round(now - self.last, 3)
        self.last = now


def choose_folder(made: Recipe, out: str | Path | None) -> Path:
    """Return the folder of a new run: `out`, or the next that is free under `runs`."""
    if out is not None:
        return Path(out)
    model = made.model.partition("@")[0].rstrip("/").split("/")[-1]
    name = f"{made.task.name}-{model}-{made.strategy.name}"
    number = next(n for n in range(1, 10**6) if not Path("runs", f"{name}-{n}").exists())
    return Path("runs", f"{name}-{number}")


def clear_folder(folder: Path, overwrite: bool, look_only: bool = False) -> None:
    """Refuse the folder of a new run that is not empty, or delete the run that it holds.

    Args:
        overwrite: delete the run in it.
        look_only: delete nothing.

    Raises:
        RecipeError: the folder is not empty, or holds no run.
    """
    if folder.is_file():
        raise RecipeError(f"'{folder}' is a file; --out must name a folder.")
    names = {path.name for path in folder.iterdir()} - {LOCK} if folder.is_dir() else set()
    if not names:
        return
    # Between recipe.toml and run.json, a run may have been killed.
    is_run = "run.json" in names or all(
        name == "recipe.toml" or name.startswith((".run.json.", "stdin.")) for name in names)
    if not overwrite:
        unfinished = "run.json" in names and read_record(folder)["state"] == "started"
        resume = f"Resume it: hubtune train --resume {shlex.quote(str(folder))}\n" if "run.json" in names else ""
        raise RecipeError(
            f"the folder '{folder}' is not empty"
            + (": it holds a run that stopped." if unfinished else "."),
            hint=f"{resume}Replace it: the same command with --overwrite\nOr choose another --out.",
        )
    if not is_run:
        raise RecipeError(f"'{folder}' has no run.json, so --overwrite does not delete it.",
                          hint="Choose another --out.")
    for name in () if look_only else sorted(names):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def delete_working_files(folder: Path) -> None:
    """Delete what only a run in training needs, which is many times the size of the result."""
    for name in ("checkpoints", "features"):
        shutil.rmtree(folder / name, ignore_errors=True)


def read_record(folder: Path) -> dict[str, Any]:
    """Read a run's `run.json`, migrated to this version."""
    path = Path(folder) / "run.json"
    try:
        return migrate(dict(json.loads(path.read_text(encoding="utf-8"))))
    except FileNotFoundError:
        raise ResumeError(f"'{folder}' is not a run: it has no run.json.",
                          hint="Create a run with: hubtune train") from None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ResumeError(f"it is not the record of a run: {type(error).__name__}.", where=str(path),
                          hint="Restore it from a copy, or train again with --overwrite.") from None


def read_finished(folder: Path) -> dict[str, Any]:
    """Read the `run.json` of a run whose training has ended."""
    found = read_record(folder)
    if found.get("state") == "started":
        raise ResumeError(f"'{folder}' was not finished.",
                          hint=f"Go on with: hubtune train --resume {shlex.quote(str(folder))}")
    return found


MODEL_RECORD: Mapping[str, tuple[type, ...]] = {
    "task": (dict,), "task.name": (str,), "task.options": (dict,), "task.plugin": (dict, type(None)),
    "strategy": (dict,), "loss": (dict, type(None)), "facts": (dict,), "columns": (dict,),
    "metric": (str, type(None)), "metrics": (dict,), "data": (str,), "limit": (int, type(None)),
    "loads_with": (str,), "base": (dict,), "base.repo": (str,), "base.commit": (str,),
    "base.local": (bool,), "decisions": (dict,), "versions": (dict,), "settings": (dict,), "recipe": (dict,),
    **{f"recipe.{table}": (dict,) for table in ("task", "strategy", "loss", "model", "data", "train", "publish")},
    "recipe.data.clean": (list,),
}
"""Types of the values of a `hubtune.json`, by their path, tables first; further values are ignored."""
NEEDED = {"task": ("name",), "base": ("repo", "commit", "local")}
"""Keys that a table of a `hubtune.json` has, if it is there."""


def read_model_record(path: Path, where: str) -> dict[str, Any]:
    """Read a `hubtune.json`, migrated to this version.

    Raises:
        ModelError: it is no JSON object, or its values have other types.
    """
    hint = "Delete the file to use the model as one that another tool has tuned, or fetch it again."
    record = read_json(path, where, hint)
    for name, kinds in MODEL_RECORD.items():
        table, _, key = name.rpartition(".")
        holder: Any = record
        for part in table.split(".") if table else ():
            holder = None if holder is None else holder.get(part)  # an object, since it was checked before
        if holder is None:
            continue
        if key not in holder and not (table and key in NEEDED.get(table, ())):
            continue
        value = holder.get(key)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            wanted = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
            raise ModelError(f"'{name}' must be a {wanted}, not {value!r:.100}.", where=where,
                             hint=hint)
    if not all(isinstance(column, str) for column in record.get("columns", {}).values()):
        raise ModelError("'columns' must be an object of column names.", where=where, hint=hint)
    return migrate(record)


REMOVED = ("padding_free", "compile")
"""Settings of 0.1 without a successor: their accelerators were removed."""


def migrate(record: dict[str, Any]) -> dict[str, Any]:
    """Migrate a `run.json` or `hubtune.json` of hubtune 0.1; one of this version is unchanged."""
    recipe = record.get("recipe", {})
    for parent, name in ((recipe, "train"), (record, "settings")):
        if name in parent:
            settings = {RENAMED.get(key, key): value for key, value in parent[name].items()}
            parent[name] = {key: migrate_value(f"train.{key}", value)
                            for key, value in settings.items() if key not in REMOVED}
    task = record.get("task", {})
    for table in (recipe.get("task", {}), task.get("options", {}), record.get("facts", {})):
        if "kind" in table:
            table["kind"] = migrate_value("task.kind", table["kind"])
    return record


def migrate_value(key: str, value: Any) -> Any:
    """Return a value of hubtune 0.1 by its name in this version."""
    return RENAMED_VALUES.get(key, {}).get(value, value) if isinstance(value, str) else value


def migrate_checkpoint(state: dict[str, Any]) -> dict[str, Any]:
    """Migrate the `state.json` of a checkpoint of hubtune 0.1; one of this version is unchanged."""
    if "learner" not in state:
        return state
    old = state["learner"]
    training = {name: old[name] for name in ("strategy", "optimizer", "scaler", "phase")}
    training["accelerators"] = {
        "embedding_pruning": {"used": bool(old["vocabularies"]), "kept": old["vocabularies"]},
        "feature_cache": {"used": old.get("features", False)},
    }
    return {**state, "training": training, "limit": old["limit"]}


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write `run.json` atomically."""
    write_atomically(folder / "run.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def summarize(folder: Path) -> dict[str, Any]:
    """Summarize a run: compute settings, expectations and results; null until they are known."""
    found = read_record(folder)
    return {
        "run": str(folder), "state": found["state"], "task": found["task"]["name"],
        "strategy": found["strategy"]["name"],
        "base": {name: found["base"][name] for name in ("repo", "commit")},
        "plan": found["plan"], "settings": found["settings"], "compute": found.get("compute"),
        "expected": found.get("expected"), "happened": found.get("happened"),
        "metrics": found.get("metrics"), "intervals": found.get("intervals", {}),
        "no_intervals": found.get("no_intervals", {}), "baselines": found.get("baselines", {}),
        "seconds": found.get("seconds"), "timings": found.get("timings"),
    }


def versions() -> dict[str, str]:
    """Return the versions of the packages that a result depends on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

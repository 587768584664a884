"""The runs in a folder, as `hubtune runs` lists them, and the deletion of some."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hubtune.errors import HubtuneError, RecipeError
from hubtune.record import read_record
from hubtune.runs import run_lock

DEPTH = 3
"""Levels below the folder in which runs are looked for."""


def list_runs(folder: str | Path = "runs") -> list[dict[str, Any]]:
    """Describe every run below a folder, newest first.

    Returns:
        For each `run` (its folder), `state` (started, trained, published, or unreadable with the
        `reason`), `task`, `model`, `strategy`, `metric`, `split`, `score`, `interval`, `seconds` of
        training, `bytes` on disk, `started`, and `published` (repository and commit).

    Raises:
        RecipeError: there is no such folder.
    """
    place = Path(folder)
    if not place.is_dir():
        raise RecipeError(f"there is no folder '{folder}'.",
                          hint="Runs are in runs/, or where --out put them: hubtune runs FOLDER")
    found = [describe(path.parent) for path in sorted(records_below(place))]
    return sorted(found, key=lambda run: str(run["started"] or ""), reverse=True)


def records_below(place: Path) -> Iterable[Path]:
    """Yield each `run.json` in a folder and some levels below it, but none within a run."""
    if (place / "run.json").is_file():
        yield place / "run.json"
        return
    levels = [place]
    for _ in range(DEPTH):
        inner = [path for level in levels for path in level.iterdir()
                 if path.is_dir() and not path.is_symlink()]
        yield from (path / "run.json" for path in inner if (path / "run.json").is_file())
        levels = [path for path in inner if not (path / "run.json").is_file()]


def describe(folder: Path) -> dict[str, Any]:
    """Describe a run from its record alone; one that cannot be read has a `reason`."""
    found: dict[str, Any] = dict.fromkeys((
        "task", "model", "strategy", "metric", "split", "score", "interval", "seconds", "started",
        "published", "reason"))
    found |= {"run": str(folder), "state": "unreadable", "bytes": size(folder)}
    try:
        return found | described(read_record(folder))
    except HubtuneError as error:
        return found | {"reason": error.message}
    except OSError as error:
        return found | {"reason": f"its run.json cannot be read: {error.strerror}"}
    except (KeyError, TypeError, AttributeError) as error:
        return found | {"reason": f"its run.json is not the record of a run: {type(error).__name__}: {error}"}


def described(record: dict[str, Any]) -> dict[str, Any]:
    """Return the values of `list_runs` that a record has."""
    scores = record.get("metrics") or {}
    split = next((name for name in ("test", "validation") if scores.get(name)), None)
    metric = (record.get("task") or {}).get("metric")
    published = record.get("published") or {}
    found: dict[str, Any] = {
        "state": record.get("state"), "task": record["task"]["name"],
        "model": record["recipe"]["model"]["id"], "strategy": record["strategy"]["name"],
        "metric": metric, "split": split, "seconds": record.get("seconds"),
        "started": record.get("started"),
        "published": {key: published[key] for key in ("repo", "commit", "pr") if published.get(key)} or None,
    }
    if split:
        found |= {"score": scores[split].get(metric),
                  "interval": (record.get("intervals") or {}).get(split, {}).get(metric)}
    return found


def size(folder: Path) -> int:
    """Return the bytes of a run on disk."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # a run in training deletes checkpoints
            total += path.stat().st_size if path.is_file() and not path.is_symlink() else 0
    return total


def delete_runs(folders: Sequence[str | Path], *, look_only: bool = False) -> list[str]:
    """Delete runs, all or none: each folder must hold a run that nobody works on.

    Args:
        look_only: delete nothing.

    Returns:
        The folders that were deleted, or would be.

    Raises:
        RecipeError: a folder holds no run, or also what is none of a run's.
        BusyError: a process trains or resumes a run.
    """
    places = list({Path(folder).resolve(): Path(folder) for folder in folders}.values())
    for place in places:
        check_is_run(place)
    for place in places:
        with run_lock.hold(place):
            pass
    for place in () if look_only else places:
        shutil.rmtree(place)
    return [str(place) for place in places]


OWN = ("run.json", "recipe.toml", "log.jsonl", "model", "proof", "proof.safetensors", "checkpoints",
       "features", "adapter", "hubtune", ".lock", "report.json", "report.html")
"""What a run writes into its folder, besides data from standard input and files being written.

hubtune: the logs of a tracker.
"""


def check_is_run(place: Path) -> None:
    """Require that a folder holds a run and nothing else, so that nothing else is deleted.

    Raises:
        RecipeError: it does not.
    """
    record = place / "run.json"
    try:
        is_run = not place.is_symlink() and "recipe" in json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        is_run = False
    if not is_run:
        raise RecipeError(f"'{place}' is not the folder of a run, so it is not deleted.",
                          hint="List the runs with: hubtune runs")
    others = sorted(path.name for path in place.iterdir()
                    if path.name not in OWN and not path.name.startswith((".run.json.", "stdin.")))
    if others:
        raise RecipeError(
            f"'{place}' also holds what no run writes, so it is not deleted: {', '.join(others[:5])}.",
            hint=f"Move it, or delete the folder by hand: {shlex.quote(str(place))}")

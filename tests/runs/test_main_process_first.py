"""Data is prepared once on a host: the other processes load it, and end with the first one when that fails."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from spawn import TORCHRUN, forks, in_processes, port

from hubtune import recipe
from hubtune.callbacks import Callbacks
from hubtune.cli import commands
from hubtune.devices import host_lock
from hubtune.errors import DataError
from hubtune.runs import main_process_first, preparation

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a lock of this kind is not known to this system")


def made(folder: Path, task: str = "text-classification", **settings: Any) -> recipe.Recipe:
    return recipe.build({"task": {"name": task}, "model": {"id": str(folder)}, "train": settings})


def rows() -> list[dict[str, str]]:
    return [{"text": f"{'good' if n % 2 else 'bad'} film {n}" + " and so on" * (n % 5), "label": "yes" if n % 2 else "no"} for n in range(24)]


def as_values(prepared: preparation.Prepared) -> dict[str, Any]:
    """All that training needs, as values that compare."""
    base, data = prepared.base, prepared.data
    assert data.windows is None
    return {
        "examples": {split: list(encoded.examples) for split, encoded in data.encoded.items()},
        "sizes": {split: encoded.sizes.tolist() for split, encoded in data.encoded.items()},
        "rows": {split: list(rows) for split, rows in data.rows.items()},
        "row_numbers": [int(number) for number in data.row_numbers],
        "base": [base.max_length, base.commit, base.config.to_dict()],
        "task": [prepared.task.name, vars(prepared.task.options)],
        "strategy": [prepared.strategy.name, vars(prepared.strategy.options)],
        "origin": [prepared.origin.commit, dict(prepared.origin.files)],
        "settings": vars(prepared.settings), "num_parameters": prepared.num_parameters,
        "shard": prepared.shard,
    }


def prepare_in_each(place: Path, model: Path) -> dict[str, Any]:
    """Prepare in one of several processes; the first has deleted what it saved before they return."""
    first = host_lock.is_first()
    if not first:
        preparation.prepare = None  # type: ignore[assignment]  # the others read and encode nothing
    recipe = made(model, fsdp="on")
    if first:
        prepared, record = main_process_first.prepare(recipe, Callbacks(), rows())
        assert record["lengths"]["rows"] == prepared.data.encoded["train"].rows
    else:
        prepared = main_process_first.follow(recipe, rows())
    while first and not (place.parent / "opened").exists():
        time.sleep(0.01)
    host_lock.remove_shared()
    if not first:
        (place.parent / "opened").touch()
        while host_lock.shared_folder().exists():
            time.sleep(0.01)
        assert isinstance(prepared.data.encoded["train"].owner.base, np.memmap)
    return as_values(prepared)


@forks
def test_the_other_processes_load_what_the_first_has_prepared(tiny_model: Any, tmp_path: Path) -> None:
    first, other = in_processes(2, tmp_path / "many", tiny_model("bert"), work=prepare_in_each)
    assert first == other
    assert first["examples"]["train"]


def test_examples_that_cannot_be_saved_are_prepared_by_every_process(
    tiny_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared, record = preparation.prepare(made(tiny_model("bert")), Callbacks(), rows())

    def refuse(self: Any, folder: Path) -> None:
        raise ValueError("an open image")

    monkeypatch.setattr(type(prepared.data.encoded["train"]), "save", refuse)
    main_process_first.save(prepared, record["facts"], tmp_path)
    assert main_process_first.load(made(tiny_model("bert")), tmp_path, None) is None


def follow() -> str:
    """Wait for the first process, and return the error that this ends with."""
    try:
        host_lock.wait_for_shared()
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def fail_first(place: Path, killed: bool) -> str:
    """Have the first process fail while it prepares, or be killed; the others follow it."""
    if not host_lock.is_first():
        return follow()
    parent = os.getppid()
    if not (child := os.fork()):
        host_lock.os.getppid = lambda: parent  # type: ignore[attr-defined, assignment]  # so that it counts as the first process
        with contextlib.suppress(DataError), host_lock.prepare_shared():
            time.sleep(0.3)
            if killed:
                os._exit(9)
            raise DataError("row 3 is empty")
        os._exit(1)
    os.waitpid(child, 0)
    return "failed"


TOLD = "DataError: the first process of this host could not prepare"


@forks
@pytest.mark.parametrize(("killed", "first", "second"), [
    (False, TOLD, TOLD), (True, "DataError: the first process of this host ended", TOLD),
])
def test_all_processes_end_with_the_first_and_report_its_end_once(
    killed: bool, first: str, second: str, tmp_path: Path
) -> None:
    found = in_processes(3, tmp_path / "many", killed, work=fail_first)
    assert found[0] == "failed"
    assert found[1].startswith(first)
    assert found[2].startswith(second)


def test_without_a_first_process_every_process_prepares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_lock, "APPEARS", 0.1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert host_lock.wait_for_shared() is None


@pytest.mark.parametrize(("rank", "reported"), [("0", 1), ("1", 0)])
def test_an_invalid_recipe_is_refused_by_all_processes_and_reported_by_the_first(
    rank: str, reported: int, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setenv("RANK", rank)
    assert commands.main(["train", "text-classification", "--model", "m", "--data", "d", "--set", "train.learning_rate=-1"]) == 1
    assert capsys.readouterr().err.count("train.learning_rate must be above 0") == reported


@pytest.mark.multi
def test_an_error_in_the_data_ends_all_and_is_reported_once(tiny_model: Any, tmp_path: Path) -> None:
    data = tmp_path / "rows.csv"
    data.write_text("text,label\n" + "good,yes\nbad,no\n" * 8 + ",yes\n", encoding="utf-8")
    done = subprocess.run(
        [*TORCHRUN, str(port()), "-m", "hubtune", "train", "text-classification", "--model", str(tiny_model("bert")), "--data", str(data),
         "--out", str(tmp_path / "run")], capture_output=True, text=True, check=False, timeout=200,
    )
    assert done.returncode != 0
    assert done.stderr.count("error: ") == 1, done.stderr
    assert "an empty text: row 17 (line 18) of train" in done.stderr

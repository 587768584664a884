"""Rows from standard input: kept in the run's folder, which the recipe names, so that the run can be resumed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hubtune
from hubtune.errors import DataError, RecipeError

TABLE = "text,label\n" + "".join(f"good film {n},yes\nbad film {n},no\n" for n in range(6))


def given(monkeypatch: pytest.MonkeyPatch, path: Path, content: str) -> Any:
    path.write_text(content, encoding="utf-8")
    file = path.open(encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", file)
    return file


def test_a_run_from_standard_input_is_resumed_from_its_copy_wherever_it_lies(
    tmp_path: Path, tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with given(monkeypatch, tmp_path / "pipe", TABLE):
        run = hubtune.train("text-classification", model=tiny_model("bert"), data="-", out=tmp_path / "run",
                            set={"train.max_steps": 2, "train.verify": False})
    copy = tmp_path / "run" / "stdin.csv"
    assert copy.read_text(encoding="utf-8") == TABLE
    assert run.record["recipe"]["data"]["source"] == str(copy)
    (tmp_path / "run").rename(tmp_path / "moved")
    record = {**json.loads((tmp_path / "moved" / "run.json").read_text(encoding="utf-8")), "state": "started"}
    (tmp_path / "moved" / "run.json").write_text(json.dumps(record), encoding="utf-8")
    assert hubtune.resume(tmp_path / "moved").record["state"] == "trained"


def test_rows_that_are_refused_leave_the_folder_free(
    tmp_path: Path, tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        with given(monkeypatch, tmp_path / "pipe", "text,label\nalone,\n"), pytest.raises(DataError, match="1 rows have a missing label"):
            hubtune.train("text-classification", model=tiny_model("bert"), data="-", out=tmp_path / "run")
    assert not list((tmp_path / "run").glob("stdin*"))


def test_several_processes_cannot_share_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hubtune.runs import run

    monkeypatch.setattr(run.processes, "world_size", lambda: 2)
    monkeypatch.setattr(run.processes, "single_process_error", lambda wanted: None)
    with pytest.raises(RecipeError, match="several processes cannot share standard input"):
        hubtune.train("text-classification", model=tmp_path, data="-", out=tmp_path / "run")

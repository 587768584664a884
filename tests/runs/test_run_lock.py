"""A run has one owner at a time, and a folder that cannot be used is refused before anything is prepared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hubtune
from hubtune import record
from hubtune.runs import preparation, run_lock

SETTINGS = {"train.epochs": 1.0, "data.limit": 24, "train.verify": False}


@pytest.fixture
def train(tiny_model: Callable[..., Path], reviews: Path) -> Callable[..., Any]:
    """Train a tiny model in a folder."""

    def call(out: Path, **more: Any) -> Any:
        return hubtune.train("sentiment", model=tiny_model("bert"), data=reviews, set=SETTINGS, out=out, **more)

    return call


@pytest.fixture
def unprepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be prepared."""
    monkeypatch.setattr(preparation, "prepare", lambda *given: pytest.fail("it was prepared"))


def test_a_run_in_use_is_refused_to_train_overwrite_and_resume(train: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = train(out)
    assert not (out / ".lock").exists()
    weights = (out / "model" / "model.safetensors").read_bytes()
    run.record["state"] = "started"
    record.write_record(out, run.record)
    with run_lock.hold(out):
        for call in (lambda: train(out), lambda: train(out, overwrite=True), lambda: hubtune.resume(out)):
            with pytest.raises(hubtune.BusyError, match="another process is working on the run"):
                call()
    assert (out / "model" / "model.safetensors").read_bytes() == weights


@pytest.mark.usefixtures("unprepared")
@pytest.mark.parametrize("name", ["taken", "taken/inside", "closed/inside"])
def test_a_folder_that_cannot_be_written_is_refused_first(name: str, train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taken").write_text("a file", encoding="utf-8")
    make = Path.mkdir

    def mkdir(path: Path, *given: Any, **named: Any) -> None:
        if "closed" in path.parts:
            raise PermissionError(13, "Permission denied")
        make(path, *given, **named)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(hubtune.RecipeError, match=r"is a file|cannot be written") as caught:
        train(tmp_path / name)
    assert "--out" in str(caught.value)


@pytest.mark.parametrize("left", [["recipe.toml"], ["recipe.toml", ".run.json.123"], [".run.json.123", ".lock"]])
def test_a_run_that_was_killed_before_its_record_can_be_overwritten(left: list[str], train: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    for name in left:
        (out / name).write_text("", encoding="utf-8")
    with pytest.raises(hubtune.RecipeError, match="is not empty") as caught:
        train(out)
    assert "--overwrite" in str(caught.value.hint)
    assert "--resume" not in str(caught.value.hint)
    assert train(out, overwrite=True).metrics


def test_nothing_is_left_where_the_preparation_fails(tiny_model: Any, tmp_path: Path) -> None:
    with pytest.raises(hubtune.DataError):
        hubtune.train("sentiment", model=tiny_model("bert"), data=[{"text": "good"}], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()

"""`hubtune.compare`: finished runs on the same held-out rows, and `hubtune.list_runs`, `hubtune.delete_runs`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hubtune
from hubtune.runs import run_lock

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data whose rows tell their label."""
    folder = tmp_path_factory.mktemp("compared")
    words = ("broken awful bad", "great lovely good")
    rows = [{"text": f"{words[n % 2]} {n}", "label": ("no", "yes")[n % 2]} for n in range(120)]
    for name, part in (("train", rows[:60]), ("validation", rows[60:80]), ("test", rows[80:])):
        (folder / "data").mkdir(exist_ok=True)
        (folder / f"data/{name}.jsonl").write_text("\n".join(map(json.dumps, part)), encoding="utf-8")
    (folder / "alone.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def make(tiny_model: Any, place: Path) -> Make:
    """make(name, keys) trains a run of this name once, and returns its folder."""

    def build(name: str, data: str = "data", **sets: Any) -> Path:
        folder = place / "runs" / name
        if not folder.exists():
            keys = {"train.max_steps": 60, "train.learning_rate": 3e-3, "train.verify": False, "train.warmup": 0.0,
                    **{key.replace("__", "."): value for key, value in sets.items()}}
            hubtune.train("text-classification", model=tiny_model("bert"), data=place / data, out=folder, set=keys)
        return folder

    return build


def test_equal_models_do_not_differ(make: Make, tmp_path: Path) -> None:
    shutil.copytree(make("one"), tmp_path / "other")
    (found,) = hubtune.compare([make("one"), tmp_path / "other"])
    assert (found["verdict"], found["split"], found["rows"]) == ("uncertain", "test", 40)
    assert "is not certainly different from" in found["text"]
    assert found["changed"] == {"better": {"count": 0, "numbers": []}, "worse": {"count": 0, "numbers": []}}


def test_a_run_that_learned_nothing_is_worse_and_its_rows_are_named(make: Make) -> None:
    (found,) = hubtune.compare([make("one"), make("weak", train__max_steps=1, train__learning_rate=1e-6)])
    assert found["verdict"] == "worse"
    assert found["difference"]["interval"][1] < 0
    changed = found["changed"]
    assert changed["worse"]["count"] - changed["better"]["count"] == round(-40 * found["difference"]["value"])
    assert all(1 <= number <= 40 for number in changed["worse"]["numbers"])


def test_validation_rows_of_two_seeds_are_not_the_same_rows(make: Make) -> None:
    one, other = (make(f"alone-{seed}", data="alone.jsonl", train__seed=seed, train__max_steps=1) for seed in (0, 1))
    (found,) = hubtune.compare([one, other])
    assert found["verdict"] == "not compared"
    assert "held out from train by each run's seed" in found["reason"]


def test_runs_are_listed_with_what_the_record_says(make: Make, place: Path) -> None:
    one = make("one")
    make("weak", train__max_steps=1, train__learning_rate=1e-6)
    (one.parent / "broken").mkdir(exist_ok=True)
    (one.parent / "broken" / "run.json").write_text("{", encoding="utf-8")
    (one.parent / "empty").mkdir(exist_ok=True)
    (one.parent / "empty" / "run.json").write_text("{}", encoding="utf-8")
    found = {Path(run["run"]).name: run for run in hubtune.list_runs(place)}
    record = json.loads((one / "run.json").read_text(encoding="utf-8"))
    assert found["one"]["score"] == record["metrics"]["test"]["accuracy"]
    assert found["one"]["interval"] == record["intervals"]["test"]["accuracy"]
    assert (found["one"]["state"], found["one"]["split"]) == ("trained", "test")
    assert found["one"]["bytes"] > 10_000
    assert (found["broken"]["state"], found["broken"]["score"]) == ("unreadable", None)
    assert "not the record of a run" in found["broken"]["reason"]
    assert "not the record of a run" in found["empty"]["reason"]


def test_only_whole_runs_that_nobody_works_on_are_deleted(make: Make, tmp_path: Path) -> None:
    for name in ("first", "second"):
        shutil.copytree(make("one"), tmp_path / name)
    (tmp_path / "second" / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(hubtune.RecipeError, match=r"notes\.txt"):
        hubtune.delete_runs([tmp_path / "first", tmp_path / "second"])
    with pytest.raises(hubtune.RecipeError, match="not the folder of a run"):
        hubtune.delete_runs([tmp_path])
    with run_lock.hold(tmp_path / "first"), pytest.raises(hubtune.BusyError):
        hubtune.delete_runs([tmp_path / "first", tmp_path / "second" / ".." / "first"])  # named twice
    assert hubtune.delete_runs([tmp_path / "first"], look_only=True) == [str(tmp_path / "first")]
    assert (tmp_path / "first" / "run.json").exists()
    hubtune.delete_runs([tmp_path / "first"])
    assert not (tmp_path / "first").exists()
    assert (tmp_path / "second" / "notes.txt").exists()

"""Runs and models of hubtune 0.1 open in this version: the folder `version_0_1` holds real ones (see make_runs.py there)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import hubtune
from hubtune import recipe, record

OLD = Path(__file__).parent / "version_0_1"
TEXTS = ["good film", "bad day"]
ANSWERS = {"full": [0.5232015252113342, 0.5232100486755371], "lora": [0.5038431882858276, 0.5038410425186157]}
"""Probabilities of "bad" that hubtune 0.1 gave."""


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder, in which relative paths are valid."""
    shutil.copytree(OLD, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    return tmp_path / "old"


@pytest.mark.parametrize("name", ["full", "lora"])
@pytest.mark.parametrize("place", ["{}", "{}/model"])
def test_a_run_and_its_model_predict_what_the_old_version_predicted(place: str, name: str, old: Path) -> None:
    answers = hubtune.load(place.format(name)).predict(TEXTS)
    assert [answer["probabilities"]["bad"] for answer in answers] == pytest.approx(ANSWERS[name], abs=1e-5)


@pytest.mark.parametrize("name", ["full", "lora"])
def test_a_run_is_evaluated_shown_and_staged_for_publishing(name: str, old: Path) -> None:
    run = hubtune.load(name)
    assert isinstance(run, hubtune.Run)
    found = run.evaluate("rows.csv", split="train")
    assert found["rows"] == 24
    assert 0 <= found["metrics"]["accuracy"] <= 1
    settings = hubtune.show(name)["settings"]
    assert (settings["learning_rate"], settings["max_steps"], settings["sampler"], settings["fsdp"]) == (0.01, 6, "length-bucketed", "auto")
    assert "model.safetensors" in {file["path"] for file in run.publish("me/old", dry_run=True)["files"]}


def test_a_run_is_published(old: Path, logged_in: Any) -> None:
    done = hubtune.Run("full").publish("me/from-0-1")
    answers = hubtune.load("me/from-0-1").predict(TEXTS)
    assert [answer["probabilities"]["bad"] for answer in answers] == pytest.approx(ANSWERS["full"], abs=1e-5)
    assert record.read_record(Path("full"))["published"]["commit"] == done["commit"]


def test_a_stopped_run_goes_on_from_its_checkpoint(old: Path) -> None:
    before = load_file(old / "stopped/checkpoints/step-000000004/model.safetensors")
    run = hubtune.resume("stopped")
    assert run.record["steps"] == 6
    steps = [json.loads(line)["step"] for line in Path("stopped/log.jsonl").read_text(encoding="utf-8").splitlines() if "loss" in line]
    assert sorted(set(steps)) == list(range(1, 7))
    after = load_file(old / "stopped/model/model.safetensors")
    assert any(not torch.equal(after[name], value) for name, value in before.items() if name in after)


def test_an_old_recipe_file_is_answered_with_the_new_key(old: Path) -> None:
    with pytest.raises(hubtune.HubtuneError, match=r"train\.steps is now train\.max_steps"):
        recipe.read(Path("full/recipe.toml"))


def test_a_record_is_migrated_once() -> None:
    found = json.loads((OLD / "full/run.json").read_text(encoding="utf-8"))
    once = record.migrate(json.loads(json.dumps(found)))
    assert (once["facts"]["kind"], once["recipe"]["task"]["kind"]) == ("single_label", "single_label")
    assert record.migrate(json.loads(json.dumps(once))) == once

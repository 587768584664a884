"""`hubtune plan` says what `hubtune train` then does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import hubtune
from hubtune.acceleration import embedding_pruning
from hubtune.cli import commands, console

ROWS = [{"text": "good " * (1 + n % 9) if n % 2 else "bad " * (2 + n % 7), "label": "yes" if n % 2 else "no"} for n in range(48)]
SET = {"train.epochs": 2.0, "train.batch_size": 8, "train.precision": "fp32", "train.verify": False}


@pytest.mark.parametrize("strategy", ["full", "head", "lora"])
def test_the_plan_is_what_happens(tiny_model: Any, tmp_path: Path, strategy: str) -> None:
    pytest.importorskip("peft")
    asked: dict[str, Any] = {"model": tiny_model("bert"), "data": ROWS, "strategy": strategy, "set": SET}
    found = hubtune.plan("text-classification", out=tmp_path / "run", **asked)
    assert not (tmp_path / "run").exists()
    assert json.loads(json.dumps(found)) == found
    run = hubtune.train("text-classification", out=tmp_path / "run", **asked)
    assert (found["steps"], found["parameters"]) == (run.summary()["steps"], run.summary()["parameters"])
    written = sum(path.stat().st_size for path in (tmp_path / "run/model").rglob("*")
                  if path.is_file() and path.name not in ("README.md", "hubtune.json", "run.json"))
    assert found["upload_bytes"] == pytest.approx(written, rel=0.02)
    assert found["seconds"] > 0
    assert 0 < found["seconds_an_epoch"] <= found["seconds"]
    assert found["peak_memory_bytes"] <= run.record["peak_memory_bytes"]  # of the same process, which only grows


def test_the_plan_of_a_model_with_pruned_embeddings(tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_pruning, "SMALLEST", 1)
    monkeypatch.setattr(embedding_pruning, "SPARED", 1.0)
    seen: list[Any] = []
    find = embedding_pruning.find
    monkeypatch.setattr(embedding_pruning, "find", lambda context: seen.append(find(context)) or seen[-1])
    found = hubtune.plan("text-classification", model=tiny_model("bert"), data=ROWS, set=SET)
    assert seen[-1].decision.applies
    assert found["upload_bytes"] > 0


def test_the_command_shows_it(tiny_model: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    assert commands.main(["plan", "text-classification", "--model", str(tiny_model("bert")), "--data", str(rows)]) == 0
    said = capsys.readouterr().out
    for name in ("steps", "time", "memory", "disk", "upload", "trainable"):
        assert f"\n{name} " in f"\n{said}"
    assert commands.main(["plan"]) == 2


def test_a_run_says_what_it_expected_and_what_happened(tiny_model: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    run = str(tmp_path / "run")
    sets = [part for key, value in SET.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    assert commands.main(["train", "text-classification", "--model", str(tiny_model("bert")), "--data", str(rows), "--out", run, *sets]) == 0
    assert "\nthroughput:  " in capsys.readouterr().out
    found = hubtune.show(run)
    assert found["expected"].keys() == {"peak_memory_bytes"}
    steps = [line for line in map(json.loads, (tmp_path / "run/log.jsonl").read_text(encoding="utf-8").splitlines()) if "loss" in line]
    stages = ["preparation", "loading", "memory_search", "training", "evaluation", "saving", "verification"]
    assert list(found["timings"]) == stages
    assert all(seconds >= 0 for seconds in found["timings"].values())
    happened = found["happened"]
    assert happened["tokens"] == sum(line["tokens"] for line in steps)
    assert happened["padded_tokens"] == sum(line["padded_tokens"] for line in steps)
    assert happened["padding"] == pytest.approx(1 - happened["tokens"] / happened["padded_tokens"], abs=1e-4)
    for line in steps:
        assert line["padding"] == pytest.approx(1 - line["tokens"] / line["padded_tokens"], abs=1e-4)
    taken = happened["tokens"] / happened["tokens_per_second"]
    assert happened["seconds_an_epoch"] == pytest.approx(taken * found["plan"]["steps_an_epoch"] / len(steps), abs=0.002, rel=0.01)
    assert taken < found["seconds"]
    assert commands.main(["show", run, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(found))
    assert commands.main(["show", run]) == 0
    said = capsys.readouterr().out
    for name in ("seconds per epoch", "tokens/s", "padding", "compute   fp32 on cpu"):
        assert name in said
    peak = happened["peak_memory_bytes"] / 1e9
    expected = found["expected"]["peak_memory_bytes"] / 1e9
    assert f"\npeak memory        {peak:.2f} GB (expected {expected:.2f} GB)\n" in said
    assert said.count("(expected ") == 1  # of the time there is no estimate
    assert f"\ntime               preparation {found['timings']['preparation']:.1f} s, loading " in said


def test_only_known_figures_of_a_run_are_shown() -> None:
    estimate = {"seconds_an_epoch": 0.027, "peak_memory_bytes": 640_000_000}
    assert console.run_figures(estimate, {}) == {
        "seconds per epoch": "(expected 0.027)", "peak memory": "(expected 0.64 GB)"}
    assert console.run_figures({"peak_memory_bytes": None}, {"padding": 0.0}) == {"padding": "0.0%"}
    assert console.run_figures({}, {}) == {}


def test_a_plan_is_computed_as_another_run_was(tiny_model: Any, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"model": tiny_model("bert"), "data": ROWS}
    hubtune.train("text-classification", out=tmp_path / "run", set=SET, **asked)
    kept = json.loads((tmp_path / "run/run.json").read_text(encoding="utf-8"))
    kept["compute"]["limit"] = 37
    (tmp_path / "run/run.json").write_text(json.dumps(kept), encoding="utf-8")
    assert hubtune.plan("text-classification", set={**SET, "train.plan": str(tmp_path / "run")}, **asked)["micro_batch"] == 37

"""`hubtune plan` says what `hubtune train` then does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import hubtune
from hubtune import cli

ROWS = [{"text": "good " * (1 + n % 9) if n % 2 else "bad " * (2 + n % 7), "label": "yes" if n % 2 else "no"} for n in range(48)]
SET = {"train.epochs": 2.0, "train.batch_size": 8, "train.precision": "fp32", "train.prove": False}


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


def test_the_command_shows_it(tiny_model: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    assert cli.main(["plan", "text-classification", "--model", str(tiny_model("bert")), "--data", str(rows)]) == 0
    said = capsys.readouterr().out
    for name in ("steps", "time", "memory", "disk", "upload", "learning"):
        assert f"\n{name} " in f"\n{said}"
    assert cli.main(["plan"]) == 2

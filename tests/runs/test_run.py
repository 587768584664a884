"""Resuming a run that is trained and was to be published."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hubtune.errors import ResumeError
from hubtune.runs import run


@pytest.mark.parametrize(("rank", "published"), [("0", ["me/model"]), ("1", [])])
def test_the_first_of_several_processes_publishes_a_trained_run(
    rank: str, published: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(Path(__file__).parent / "version_0_1/full", tmp_path / "run")
    record = json.loads((tmp_path / "run/run.json").read_text(encoding="utf-8"))
    record["recipe"]["publish"]["repo"] = "me/model"
    (tmp_path / "run/run.json").write_text(json.dumps(record), encoding="utf-8")
    pushed: list[str] = []

    def publish(self: Any, repo: str, **settings: Any) -> None:
        pushed.append(repo)

    monkeypatch.setattr(run.Run, "publish", publish)
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "2")
    found = run.resume(tmp_path / "run")
    assert pushed == published
    if rank == "1":
        with pytest.raises(ResumeError, match="process 1 of 2 has no run"):
            found.metrics  # noqa: B018

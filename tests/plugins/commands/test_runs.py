"""`hubtune runs`: what is listed, in which order, and what is deleted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hubtune_plugins.commands.runs import Runs

from hubtune.testing import CommandConformance

HERE = Path(__file__).resolve().parents[2] / "runs" / "version_0_1"
"""Runs that hubtune 0.1 left: a full fine-tuning, one with LoRA, and one that stopped."""


class TestRuns(CommandConformance):
    plugin = Runs

    def arguments(self, folder: Path) -> list[str]:
        return [str(HERE)]


def listed(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    from hubtune.cli import commands

    assert commands.main(["runs", *arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_runs_are_filtered_and_sorted(capsys: pytest.CaptureFixture[str]) -> None:
    found = listed(capsys, str(HERE))["runs"]
    assert {Path(run["run"]).name for run in found} == {"full", "lora", "stopped"}
    assert [Path(run["run"]).name for run in listed(capsys, str(HERE), "--strategy", "lora")["runs"]] == ["lora"]
    assert [Path(run["run"]).name for run in listed(capsys, str(HERE), "--state", "started")["runs"]] == ["stopped"]
    sizes = [run["bytes"] for run in listed(capsys, str(HERE), "--sort", "size")["runs"]]
    assert sizes == sorted(sizes, reverse=True)
    scores = [run["score"] for run in listed(capsys, str(HERE), "--sort", "score")["runs"]]
    assert scores[-1] is None


def test_nothing_is_deleted_without_yes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shutil.copytree(HERE / "full", tmp_path / "run")
    found = listed(capsys, "--delete", str(tmp_path / "run"))
    assert (found["deleted"], found["look_only"]) == ([str(tmp_path / "run")], True)
    assert (tmp_path / "run").exists()
    assert not listed(capsys, "--delete", str(tmp_path / "run"), "--yes")["look_only"]
    assert not (tmp_path / "run").exists()


def test_no_folder_and_no_order_are_errors(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "no folder" in listed(capsys, str(tmp_path / "none"), code=1)["error"]["message"]
    assert "--sort is one of" in listed(capsys, str(tmp_path), "--sort", "name", code=1)["error"]["message"]

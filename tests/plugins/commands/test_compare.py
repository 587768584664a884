"""`hubtune compare`: settings that differ, and scores of one split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hubtune_plugins.commands.compare import Compare

from hubtune.testing import CommandConformance

HERE = Path(__file__).resolve().parents[2] / "runs" / "version_0_1"
"""Runs that hubtune 0.1 left: a full fine-tuning, and one with LoRA."""


class TestCompare(CommandConformance):
    plugin = Compare

    def arguments(self, folder: Path) -> list[str]:
        return [str(HERE / "full"), str(HERE / "lora")]


def compared(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    from hubtune.cli import commands

    assert commands.main(["compare", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_only_settings_that_differ_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    found = compared(capsys, str(HERE / "full"), str(HERE / "lora"))
    assert found["same_rows"]
    assert [run["settings"]["strategy.name"] for run in found["runs"]] == ["full", "lora"]
    assert found["differing"] == ["task.kind", "strategy.name"]
    assert compared(capsys, str(HERE / "full"), str(HERE / "full"))["differing"] == []


def test_scores_are_those_of_the_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = compared(capsys, str(HERE / "lora"))["runs"]
    record = json.loads((HERE / "lora" / "run.json").read_text())
    split = "test" if "test" in record["metrics"] else "validation"
    assert found["metrics"] == record["metrics"][split]


def test_a_split_that_a_run_lacks_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    from hubtune.cli import commands

    assert commands.main(["compare", str(HERE / "full"), "--split", "other"]) == 1
    assert "has no scores of the split 'other'" in capsys.readouterr().err


def test_no_run_is_an_error_in_one_block(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from hubtune.cli import commands

    assert commands.main(["compare", str(tmp_path)]) == 1
    assert "is not a run" in capsys.readouterr().err

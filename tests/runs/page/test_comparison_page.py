"""The page of a comparison: its figures are those of the command, and no text becomes a part of it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from hubtune.runs.page import comparison_page

OLD = Path(__file__).resolve().parents[1] / "version_0_1"


def test_the_page_holds_what_the_command_prints_and_the_curves_of_the_logs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path,
) -> None:
    from hubtune.cli import commands

    for name in ("full", "lora"):
        shutil.copytree(OLD / name, tmp_path / name)
    runs = [str(tmp_path / "full"), str(tmp_path / "lora")]
    file = tmp_path / "both.html"
    assert commands.main(["compare", *runs, "--scores-only", "--html", str(file), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["html"] == str(file)
    (script,) = re.findall(r'<script type="application/json" id="figures">(.*?)</script>', file.read_text(encoding="utf-8"), re.DOTALL)
    found: Any = json.loads(script)
    curves = found.pop("curves")
    assert found == printed
    log = [json.loads(line) for line in (tmp_path / "lora" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert curves["lora"]["loss"]["training loss"] == [[line["step"], line["loss"]] for line in log if "split" not in line]


def test_differences_are_drawn_with_their_intervals_and_told_in_a_table() -> None:
    pairs = [{"run": "a/x", "against": "b/x", "difference": {"metric": "f1", "value": 0.05, "interval": [0.01, 0.09]}},
             {"run": "c/x", "against": "b/x", "difference": {"metric": "f1", "value": -0.02, "interval": None}},
             {"run": "d/x", "against": "b/x", "difference": None}]
    names = comparison_page.distinct(["a/x", "b/x", "c/x", "d/x"])
    assert names == {"a/x": "a/x", "b/x": "b/x", "c/x": "c/x", "d/x": "d/x"}
    made: Any = comparison_page.differences(pairs, names)
    assert made["rows"] == [["a/x", "+0.0500", "+0.0100 to +0.0900"], ["c/x", "-0.0200", "none"]]
    assert comparison_page.differences(pairs[2:], names) is None


def test_names_are_as_long_as_they_must_be() -> None:
    assert comparison_page.distinct(["runs/a", "runs/b"]) == {"runs/a": "a", "runs/b": "b"}
    assert comparison_page.distinct(["runs/a", "runs/a"]) == {"runs/a": "a"}

"""`hubtune report`: the page of a finished run, written anew."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hubtune_plugins.commands.report import Report

from hubtune.testing import CommandConformance

OLD = Path(__file__).resolve().parents[2] / "runs" / "version_0_1" / "full"


class TestReport(CommandConformance):
    plugin = Report

    def arguments(self, folder: Path) -> list[str]:
        return [str(shutil.copytree(OLD, folder / "run", dirs_exist_ok=True))]


def test_it_says_where_the_page_is(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from hubtune.cli import commands

    folder = shutil.copytree(OLD, tmp_path / "run")
    assert commands.main(["report", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"run": str(folder), "report": str(folder / "report.html"), "rows": True}
    assert (folder / "report.html").is_file()


def test_what_is_no_run_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from hubtune.cli import commands

    assert commands.main(["report", str(tmp_path)]) == 1
    assert "is not a run" in capsys.readouterr().err

"""`make gpu` in its tiny form: hubtune from a copied tree, a check, and one measurement with its page."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import checks, made, page, table, tree
from benchmarks.measures import REPO


def test_a_copied_tree_has_its_plugins_without_an_installation(tmp_path: Path) -> None:
    for name in ("hubtune", "plugins"):
        shutil.copytree(REPO / name, tmp_path / "copy" / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(REPO / "benchmarks", tmp_path / "copy" / "benchmarks", ignore=shutil.ignore_patterns("results", "__pycache__"))
    shutil.copy(REPO / "pyproject.toml", tmp_path / "copy")
    script = """
from pathlib import Path
from benchmarks.gpu import tree
import json, os, subprocess, sys
found = tree.environment(Path("place"))
code = "import hubtune.api, json; from importlib.metadata import distribution; from hubtune.contract import registry; " \\
    "print(json.dumps([hubtune.__file__, str(distribution('hubtune')._path), sorted(registry.load().tasks)]))"
print(subprocess.run([sys.executable, "-c", code], env=found, cwd="/", capture_output=True, text=True, check=True).stdout)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path / "copy", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    file, metadata, tasks = json.loads(done.stdout)
    assert file.startswith(str(tmp_path / "copy"))
    assert "place" in metadata
    assert "text-classification" in tasks
    assert "image-classification" in tasks


def test_every_package_that_hubtune_needs_is_here() -> None:
    assert tree.missing() == []


@pytest.mark.parametrize("name", ["out_of_memory", "fp16"])
def test_checks_tell_what_they_saw(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checks.main(name, str(tmp_path))
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["result"] == ("skipped" if name == "fp16" and not checks.on_cuda() else "passed"), found


def test_a_check_that_fails_is_told_and_is_the_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "SECONDS", 0.01)
    code = command.main(["--device", "cpu", "--only", "checks", "--checks", "bf16", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert (code, found["checks"]["bf16"]["result"]) == (1, "failed")
    assert "no end within" in (tmp_path / "gpu.md").read_text(encoding="utf-8")


def test_both_sides_of_a_row_are_measured(tmp_path: Path) -> None:
    row = next(row for row in table.rows("cpu") if "20" in row.name)
    given = command.asked(["--device", "cpu", "--threads", "1", "--out", str(tmp_path / "out")])
    session = command.Session(given, tmp_path)
    for way in ("hubtune", "Trainer"):
        session.bench(row, way, 0)
    assert [record.get("failed") for record in session.found["bench"]] == [None, None]
    lines = page.bench_table(session.found["bench"]).splitlines()
    assert len(lines) == 4
    assert all("failed" not in line for line in lines)


def test_made_texts_have_the_lengths_that_are_asked_for() -> None:
    lengths = [len(row["text"].split()) for row in made.labelled(90, 510, 2_000)]
    assert 80 < sum(lengths) / len(lengths) < 100
    assert max(lengths) <= 510
    assert max(lengths) > 200

"""`hubtune plugin new`, and a stranger's distribution: installed with pip, found, and green by their own tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from hubtune.cli import commands
from hubtune.contract.scaffold import distribution as scaffold
from hubtune.errors import PluginError

REPO = Path(__file__).resolve().parents[2]
KINDS = ("task", "strategy", "loss", "metric", "format", "exporter", "command")


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_distribution_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    folder = tmp_path / "made"
    assert commands.main(["plugin", "new", "toxic-spans", "--kind", kind, "--out", str(folder), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made == {
        "name": "toxic-spans", "kind": kind, "distribution": "hubtune-toxic-spans", "module": "hubtune_toxic_spans",
        "folder": str(folder), "files": [".github/workflows/test.yml", ".gitignore", "README.md", "hubtune_toxic_spans.py",
                                         "pyproject.toml", "tests/test_toxic_spans.py"],
    }
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == made["files"]
    for name in made["files"]:
        text = (folder / name).read_text(encoding="utf-8")
        assert "{{" not in text.replace("${{ matrix.python }}", ""), name
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["entry-points"]["hubtune"] == {"toxic-spans": "hubtune_toxic_spans"}
    workflow = yaml.safe_load((folder / ".github/workflows/test.yml").read_text(encoding="utf-8"))
    assert workflow["jobs"]["test"]["steps"][-1] == {"run": "python -m pytest"}
    done = subprocess.run([sys.executable, "-m", "ruff", "check", str(folder), "--isolated", "--line-length", "120", "--select", "E,F,UP,B"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_what_is_next_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert commands.main(["plugin", "new", "toxic-spans"]) == 0
    out = capsys.readouterr().out
    assert "hubtune-toxic-spans/hubtune_toxic_spans.py\n" in out
    assert out.endswith("next:   cd hubtune-toxic-spans && pip install -e '.[dev]' && python -m pytest\n")


@pytest.mark.parametrize(("name", "message"), [
    ("Toxic", "is no name for a plugin"), ("toxic_spans", "is no name"), ("toxic--spans", "is no name"), ("1-spans", "is no name"),
    ("../spans", "is no name"), ("", "is no name"), ("x" * 41, "is no name"), ("full", "a strategy named 'full' already"), ("focal", "a loss named 'focal' already"),
    ("train", "is a command of hubtune"),
    ("text-classification", "a task named 'text-classification' already"), ("plugins", "the module hubtune_plugins is already installed"),
    ("hubtune-spans", "would become 'hubtune-hubtune-spans'"),
])
def test_a_name_that_cannot_be_is_refused(tmp_path: Path, name: str, message: str) -> None:
    for kind in KINDS:
        with pytest.raises(PluginError, match=message):
            scaffold.new(name, kind, tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "note").write_text("mine", encoding="utf-8")
    for place in (tmp_path, tmp_path / "note"):
        with pytest.raises(PluginError, match="is there already"):
            scaffold.new("toxic-spans", "task", place)
    assert [path.name for path in tmp_path.iterdir()] == ["note"]


@pytest.mark.parametrize("arguments", [["plugin", "old", "x"], ["plugin", "new"], ["plugin", "new", "x", "--kind", "model"]])
def test_wrong_usage_is_two(arguments: list[str]) -> None:
    assert commands.main(arguments) == 2


def test_every_template_is_used() -> None:
    used = {scaffold.filled(template, {"kind": kind}) for template in scaffold.FILES.values() for kind in KINDS}
    assert {path.name for path in scaffold.TEMPLATES.iterdir()} == used


@pytest.mark.slow
def test_distributions_of_strangers_install_are_found_and_pass_their_own_tests(tmp_path: Path) -> None:
    """What `plugin new` writes of every kind, and examples/hubtune-intent: by pip into a folder of their own."""
    pytest.importorskip("hatchling", reason="the distributions are built with hatchling: pip install hatchling")
    sources: list[Path] = [REPO / "examples" / "hubtune-intent"]
    for kind in KINDS:
        scaffold.new(f"made-{kind}", kind, tmp_path / kind)
        sources.append(tmp_path / kind)
    place = tmp_path / "site"
    installed = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation",
         "--disable-pip-version-check", "--target", str(place), *map(str, sources)], capture_output=True, text=True, check=False)
    assert installed.returncode == 0, installed.stderr
    environment = {**os.environ, "PYTHONPATH": str(place)}
    listed = subprocess.run([sys.executable, "-m", "hubtune", "plugins", "--json"], capture_output=True, text=True, check=False,
                            env=environment)
    found: dict[str, Any] = {plugin["name"]: plugin for plugin in json.loads(listed.stdout)["plugins"]}
    for name, source in (("intent-recognition", "hubtune-intent"), *((f"made-{kind}", f"hubtune-made-{kind}") for kind in KINDS)):
        assert (found[name]["status"], found[name]["source"], found[name]["version"]) == ("ok", source, "0.1.0"), found[name]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", "-c", os.devnull,
         "--rootdir", str(tmp_path), *(str(source / "tests") for source in sources)],
        capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout

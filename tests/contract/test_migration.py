"""A plugin of contract 1 gets one message that names what its author has to rename."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hubtune
from hubtune import (
    Batch,
    ContrastiveTask,
    GenerativeTask,
    OptimizerStrategy,
    ReferenceTask,
    SamplingTask,
    StepStrategy,
    Strategy,
    Task,
)
from hubtune.contract import local_files, migration, registry
from hubtune.contract.migration import RENAMED
from hubtune.errors import ContractMismatch
from hubtune.testing import TaskConformance

HERE = Path(__file__).parent
OLDER = HERE / "contract_1"
"""Plugin files as they were written for contract 1."""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(local_files.VARIABLE, "")


def refused(path: Path) -> registry.Found:
    local_files.use([path])
    return next(plugin for plugin in registry.load().plugins if plugin.name == path.stem)


@pytest.mark.parametrize(("file", "expected"), [
    ("hubtune_levels.py", "Levels speaks contract 1; this hubtune speaks 2: Setup is now ModelSetup, inspect is now validate_data, "
     "configure is now model_config, size is now num_tokens, judge is now postprocess, "
     "sample is now sample of the test class, gold is now gold of the test class."),
    ("hubtune_vectors.py", "Vectors speaks contract 1; this hubtune speaks 2."),
])
def test_a_contract_1_file_is_refused_with_the_new_names(file: str, expected: str) -> None:
    plugin = refused(OLDER / file)
    assert (plugin.status, type(plugin.error)) == ("refused", ContractMismatch)
    assert plugin.reason == f"{expected} How to port it: {migration.GUIDE}."


def test_a_class_that_imports_no_renamed_type_is_refused_with_the_same_names(tmp_path: Path) -> None:
    """Its module imports, so that the class itself is read."""
    text = (OLDER / "hubtune_levels.py").read_text(encoding="utf-8").replace("Setup, ", "").replace("return Setup(", "return dict(")
    (tmp_path / "levels.py").write_text(text, encoding="utf-8")
    reason = str(refused(tmp_path / "levels.py").reason)
    assert "inspect is now validate_data" in reason
    assert "judge is now postprocess" in reason
    assert "ModelSetup" not in reason


def test_an_import_error_of_another_kind_stays_one(tmp_path: Path) -> None:
    (tmp_path / "lacking.py").write_text("from hubtune import NoSuchThing\n", encoding="utf-8")
    plugin = refused(tmp_path / "lacking.py")
    assert plugin.status == "broken"
    assert "NoSuchThing" in str(plugin.reason)


def test_renaming_what_the_message_names_is_enough_for_a_strategy(tmp_path: Path) -> None:
    text = (OLDER / "hubtune_vectors.py").read_text(encoding="utf-8")
    (tmp_path / "vectors.py").write_text(text.replace("contract = 1", "contract = 2").replace("lr", "learning_rate"), encoding="utf-8")
    assert refused(tmp_path / "vectors.py").status == "ok"


CLASSES = (Task, ContrastiveTask, GenerativeTask, ReferenceTask, SamplingTask, Strategy, StepStrategy, OptimizerStrategy,
           Batch(None, None, 1), TaskConformance, hubtune)  # type: ignore[arg-type]


def test_every_new_name_is_in_the_contract() -> None:
    for old, new in RENAMED.items():
        name, of, _ = re.match(r"(?:the base class )?(\w+)(?: \(of (\w+)\)| of (\w+))?", new).groups()  # type: ignore[union-attr]
        assert any(hasattr(known, name) for known in CLASSES), new
        assert of is None or hasattr(getattr(hubtune, of), name), new
        assert old in (name, "load") or not any(hasattr(known, old) for known in (Task, Strategy, hubtune)), old


def test_the_guide_has_every_renamed_name() -> None:
    page, heading = re.fullmatch(r'(\S+), "(.+)"', migration.GUIDE).groups()  # type: ignore[union-attr]
    text = (HERE.parents[1] / page).read_text(encoding="utf-8")
    section = text.split(f"## {heading}")[1].split("\n## ")[0]
    missing = [old for old in RENAMED if not re.search(rf"`(\w+\.)?{old}`", section)]
    assert not missing


def test_the_command_line_shows_it_in_one_block(tmp_path: Path) -> None:
    shutil.copy(OLDER / "hubtune_levels.py", tmp_path / "levels.py")
    done = subprocess.run([sys.executable, "-m", "hubtune", "train", "levels", "--plugin", str(tmp_path / "levels.py"), "--data", "x.csv",
                           "--model", "me/m"], capture_output=True, text=True, check=False)
    assert done.returncode
    assert "Traceback" not in done.stderr
    assert "judge is now postprocess" in done.stderr
    assert "From contract 1 to contract 2" in done.stderr

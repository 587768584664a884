"""Types: hubtune and its plugins are checked strictly, and say so to those who install them."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]


def test_both_packages_are_checked_strictly_and_marked_as_typed() -> None:
    checked = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]
    assert checked["strict"]
    assert set(checked["packages"]) == {"hubtune", "hubtune_plugins"}
    assert (REPO / "hubtune" / "py.typed").is_file()
    assert (REPO / "plugins" / "hubtune_plugins" / "py.typed").is_file()


@pytest.mark.slow
def test_the_wheel_has_what_it_needs_beside_the_modules(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="the wheel is built with hatchling: pip install hatchling")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation",
         "--disable-pip-version-check", "--wheel-dir", str(tmp_path), str(REPO)],
        capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("hubtune-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"hubtune/py.typed", "hubtune_plugins/py.typed"} <= names
    templates = REPO / "hubtune" / "contract" / "scaffold" / "templates"
    assert {f"hubtune/contract/scaffold/templates/{path.name}" for path in templates.iterdir()} <= names
    assert not [name for name in names if name.startswith(("tests/", "plugins/"))]

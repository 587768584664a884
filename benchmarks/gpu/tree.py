"""hubtune from a copied tree: its plugins are found without an installation, which would need a network."""

from __future__ import annotations

import os
import re
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.measures import REPO


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of a process that runs hubtune from this tree.

    Entry points are read from metadata of distributions, so the metadata is written into `folder`.
    """
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    place = folder.resolve() / "metadata" / f"hubtune-{project['version']}.dist-info"
    place.mkdir(parents=True, exist_ok=True)
    (place / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: hubtune\nVersion: {project['version']}\n", encoding="utf-8")
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in entries.items())]
    (place / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    paths = [str(place.parent), str(REPO), str(REPO / "plugins"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false"}


def missing() -> list[str]:
    """Return the packages that hubtune needs and this Python lacks."""
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [re.split(r"[>=<\[ ]", line)[0] for line in project["dependencies"]]
    return [name for name in names if not is_installed(name)]


def is_installed(name: str) -> bool:
    """Return whether a distribution is installed."""
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True

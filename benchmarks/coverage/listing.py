"""The coverage as data of the command `hubtune models`: what passed, and why the rest did not, by task and strategy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.coverage.page import plain

DATA = Path(__file__).resolve().parents[2] / "plugins" / "hubtune_plugins" / "commands" / "architectures.json"
"""The file of the package."""
TRIED = ("passed", "refused", "failed")


def render(lines: Sequence[Mapping[str, Any]], transformers: str) -> str:
    """Return the data as JSON: {task: {architecture: {strategy: null, or why it did not pass}}}, and which have a head of ours."""
    tasks: dict[str, dict[str, dict[str, str | None]]] = {}
    heads: dict[str, list[str]] = {}
    for line in sorted(lines, key=lambda one: (one["task"], one["model_type"], one["strategy"])):
        if line["state"] not in TRIED:
            continue
        reason = None if line["state"] == "passed" else f"{line['state']}: {plain(line.get('reason') or 'no reason was written')}"
        tasks.setdefault(line["task"], {}).setdefault(line["model_type"], {})[line["strategy"]] = reason
        known = heads.setdefault(line["task"], [])
        if line.get("head") and reason is None and line["model_type"] not in known:
            known.append(line["model_type"])
    return json.dumps({"transformers": transformers, "tasks": tasks, "heads": heads}, indent=1) + "\n"

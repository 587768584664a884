"""`hubtune models`: the architectures that were trained, by task and strategy, as the coverage run found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from hubtune import Command, RecipeError, Table, hookimpl

DATA = Path(__file__).with_name("architectures.json")
"""Written by `python -m benchmarks.coverage --page-only`."""


class Models(Command[Any]):
    """The architectures of transformers that hubtune trained for a task, and why others did not pass: tiny models of random
    weights, trained, saved, and loaded by plain transformers. Without `--task` and `--search` it counts them by task.

    An architecture that is not listed was not tried. What fits one model: `hubtune show REPO`; models of the Hub by name:
    `hubtune search WORDS`.
    """

    contract = 2
    name = "models"
    summary = "list architectures that were trained, by task and strategy"

    def run(
        self,
        task: Annotated[str | None, typer.Option(help="Only this task.")] = None,
        strategy: Annotated[str | None, typer.Option(help="Only those that passed with this strategy.")] = None,
        search: Annotated[str | None, typer.Option(metavar="WORDS", help="Only architectures whose name contains all words.")] = None,
    ) -> dict[str, Any]:
        data = json.loads(DATA.read_text(encoding="utf-8"))
        known = data["tasks"]
        if task is not None and task not in known:
            raise RecipeError(f"no architectures were tried for the task '{task}'.", hint=f"Tried were: {', '.join(known)}")
        words = (search or "").lower().split()
        found = [
            {"architecture": name, "task": one, "head": "hubtune" if name in data["heads"][one] else "transformers",
             "strategies": sorted(key for key, reason in tried.items() if reason is None),
             "reasons": {key: reason for key, reason in tried.items() if reason is not None}}
            for one, architectures in known.items() if task in (None, one)
            for name, tried in architectures.items() if all(word in name.lower() for word in words)]
        found = [one for one in found if strategy is None or strategy in one["strategies"]]
        return {"transformers": data["transformers"], "counted": task is None and not words, "models": found}

    def table(self, document: dict[str, Any]) -> Table:
        models = document["models"]
        notes = [f"Tried with transformers {document['transformers']}, on tiny models of random weights: what is shown is that they train, "
                 "save and load right."]
        if document["counted"]:
            tasks = list(dict.fromkeys(one["task"] for one in models))
            rows = [counts(task, [one for one in models if one["task"] == task]) for task in tasks]
            return Table(["task", "architectures", "passed", "by a head of hubtune's"], rows, [*notes, "By name: hubtune models --task TASK"])
        lines = [[one["architecture"], one["task"], ", ".join(one["strategies"]) or "none", one["head"] if one["strategies"] else None,
                  next(iter(one["reasons"].values()), None)] for one in models]
        return Table(["architecture", "task", "passed with", "head", "reason"], lines, notes)


def counts(task: str, models: list[dict[str, Any]]) -> list[object]:
    """Return how many architectures were tried for a task, and how many passed with at least one strategy."""
    passed = [one for one in models if one["strategies"]]
    return [task, len(models), len(passed), sum(one["head"] == "hubtune" for one in passed)]


@hookimpl
def hubtune_commands() -> list[type[Command[Any]]]:
    return [Models]

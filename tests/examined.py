"""Rows that are examined as before a training: the report, and the data with its validation split."""

from __future__ import annotations

from typing import Any

from hubtune import Callbacks, Task
from hubtune.contract import registry
from hubtune.data.checks.examine import Examined
from hubtune.data.data_splits import DataSplits
from hubtune.errors import DataError
from hubtune.recipe import Recipe, build
from hubtune.runs import prepared_data


class Heard(Callbacks):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.info: list[str] = []
        self.warnings: list[str] = []

    def on_info(self, text: str) -> None:
        self.info.append(text)

    def on_warning(self, text: str) -> None:
        self.warnings.append(text)


def recipe_for(task: str, **settings: Any) -> Recipe:
    """A recipe from settings by their keys, with `__` for the dot: `data__clean=[...]`."""
    tables: dict[str, dict[str, Any]] = {"task": {"name": task}, "model": {"id": "tiny/bert"}}
    for key, value in settings.items():
        table, _, name = key.partition("__")
        tables.setdefault(table, {})[name] = value
    return build(tables)


def examined(source: Any, task: str = "text-classification", **settings: Any) -> Examined:
    recipe = recipe_for(task, **settings)
    return prepared_data.examine_data(recipe, registry.load().task(recipe.task), source, None)


def refusal(source: Any, task: str = "text-classification", **settings: Any) -> DataError:
    """The error of data that would be refused."""
    report = examined(source, task, **settings).report
    assert report.refused
    return report.error()


def loaded(source: Any, task: str = "text-classification", **settings: Any) -> tuple[DataSplits, dict[str, Any], Heard]:
    """The splits, what the task found in them, and what was said."""
    recipe, heard = recipe_for(task, **settings), Heard()
    made: Task[Any] = registry.load().task(recipe.task)
    data, dataset_info = prepared_data.load_data(recipe, made, source, None, heard)
    return data, dataset_info, heard

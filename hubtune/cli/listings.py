"""Installed plugins, as the documents that `hubtune tasks`, `strategies` and `plugins` print, and recipes to fill in."""

from __future__ import annotations

import contextlib
import dataclasses
import typing
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from hubtune.callbacks import Callbacks
from hubtune.contract import CONTRACT, ClassificationTask, Plugin, Task, registry
from hubtune.contract.class_checks import KINDS
from hubtune.errors import MissingExtra, UnknownPlugin, did_you_mean
from hubtune.options import describe
from hubtune.recipe import DataConfig, PluginChoice, PublishConfig, ReportConfig, TrainConfig


def options_of(kind: type[Any]) -> dict[str, dict[str, Any]]:
    """The fields of an options dataclass: type, default, help, and the values they may take."""
    hints = typing.get_type_hints(kind)
    made = kind()
    return {
        item.name: {
            "type": describe(hints[item.name]), "default": getattr(made, item.name),
            "help": item.metadata.get("help", ""),
            **({"choices": list(item.metadata["choices"])} if item.metadata.get("choices") else {}),
        }
        for item in dataclasses.fields(kind) if "help" in item.metadata
    }


def common(kind: type[Plugin[Any]], plugins: registry.Registry) -> dict[str, Any]:
    """Return what plugins of all kinds that have options say of themselves."""
    reason = registry.unavailable(kind)
    return {
        "name": kind.name, "summary": kind.summary, "plugin": plugins.origin(kind).name,
        "options": options_of(kind.Options), "available": reason is None, "reason": reason,
    }


def tasks() -> dict[str, Any]:
    """The tasks there are."""
    plugins = registry.load()
    return {"tasks": [
        {
            **common(kind, plugins), "model": kind.model, "pipeline_tag": kind.pipeline_tag,
            "metric": {"name": kind.metric.name, "higher_is_better": kind.metric.higher_is_better},
            "columns": [{"role": c.role, "names": list(c.names), "needed": c.needed} for c in kind.columns],
        }
        for _, kind in sorted(plugins.tasks.items())
    ]}


def strategies() -> dict[str, Any]:
    """The strategies there are."""
    plugins = registry.load()
    return {"strategies": [
        {**common(kind, plugins), "paper": kind.paper, "defaults": dict(kind.defaults), "loads_with": kind.loads_with}
        for _, kind in sorted(plugins.strategies.items())
    ]}


def losses() -> dict[str, Any]:
    """The losses there are."""
    plugins = registry.load()
    return {"losses": [{**common(kind, plugins), "paper": kind.paper, "kinds": list(kind.kinds)}
                       for _, kind in sorted(plugins.losses.items())]}


def metrics() -> dict[str, Any]:
    """The metrics there are, beside those of tasks."""
    plugins = registry.load()
    return {"metrics": [{**common(kind, plugins), "higher_is_better": kind.higher_is_better, "kinds": list(kind.kinds)}
                        for _, kind in sorted(plugins.metrics.items())]}


def plugins() -> dict[str, Any]:
    """The plugins there are, and what became of each."""
    names = ("name", "version", "source", "status", "reason")
    return {"contract": CONTRACT, "plugins": [
        {**{name: getattr(found, name) for name in names}, **found.brings} for found in registry.load().plugins
    ]}


def with_contents(plugins: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Add the contents of each plugin as text, such as `tasks sentiment`, for a table."""
    return [{**item, "contents": [f"{kind} {' '.join(item[kind])}" for kind in KINDS if item.get(kind)]}
            for item in plugins]


def checked(names: Collection[str], callbacks: Callbacks) -> dict[str, Any]:
    """Every task with every strategy, or those of these names, tried on tiny models."""
    from hubtune.testing import matrix

    found = registry.load()
    known = {*found.tasks, *found.strategies}
    for name in names:
        if name not in known:
            raise UnknownPlugin(f"no task or strategy named '{name}'.{did_you_mean(name, known)}",
                                hint="See them with: hubtune plugins")
    return matrix.check(found, callbacks, names)


def show(items: Sequence[Mapping[str, Any]], columns: list[str]) -> None:
    """Plugins, or what they bring, as a table."""
    from hubtune.cli import console

    def cell(item: Mapping[str, Any], column: str) -> object:
        value = item[column]
        if isinstance(value, list):
            return ", ".join(value)
        return value["name"] if isinstance(value, dict) else value

    console.table(columns, [[cell(item, column) for column in columns] for item in items])


MARKS = {"pass": "pass", "fail": "FAIL", "not-applicable": "-"}


def show_matrix(found: Mapping[str, Any]) -> None:
    """Print the result of `checked` as a table of tasks by strategies, and the reasons below it."""
    from hubtune.cli import console

    cells = {(cell["task"], cell["strategy"]): cell for cell in found["cells"]}
    rows, columns = (list(dict.fromkeys(pair[place] for pair in cells)) for place in (0, 1))
    console.table(["", *columns], [
        [row, *(MARKS[cells[row, column]["result"]] if (row, column) in cells else "" for column in columns)] for row in rows
    ])
    for result, title in (("fail", "fails"), ("not-applicable", "does not apply")):
        said = [cell for cell in found["cells"] if cell["result"] == result]
        if said:
            console.out()
            console.table(["task", "strategy", "reason"], [[c["task"], c["strategy"], c["reason"]] for c in said], title)
    counts = found["counts"]
    console.out(f"\n{counts['pass']} pass, {counts['fail']} fail, {counts['not-applicable']} do not apply")


def commented_recipe(task: str, model: str = "", data: str = "", strategy: str = "full") -> str:
    """A recipe file with every key, its default and a line of help; keys that follow the data are commented out."""
    import tomlkit

    plugins = registry.load()
    with contextlib.suppress(MissingExtra):  # a recipe may be written where it cannot run
        plugins.task(PluginChoice(task))
    with contextlib.suppress(MissingExtra):
        plugins.strategy(PluginChoice(strategy))
    chosen, way = plugins.tasks[task], plugins.strategies[strategy]
    document = tomlkit.document()
    document.add(tomlkit.comment("A recipe: everything a run is. Train with: hubtune train recipe.toml"))
    loss = tomlkit.comment('[loss]: a loss of a classification task in place of its own (list: hubtune losses); name = "focal"')
    tables: list[tuple[str, dict[str, Any], type[Any]]] = [
        ("task", {"name": task}, chosen.Options), ("strategy", {"name": strategy}, way.Options),
        ("model", {"id": model or "org/name"}, object), ("data", {"source": data or "data.csv"}, DataConfig),
        ("train", {}, TrainConfig), ("publish", {}, PublishConfig), ("report", {}, ReportConfig),
    ]
    for name, given, kind in tables:
        table = tomlkit.table()
        for key, value in given.items():
            table.add(key, value)
        for key, said in (options_of(kind) if dataclasses.is_dataclass(kind) else {}).items():
            if key in given:
                continue
            line = f"{said['help']}" + (f" ({', '.join(map(str, said['choices']))})" if "choices" in said else "")
            table.add(tomlkit.comment(line))
            if said["default"] is None:
                table.add(tomlkit.comment(f"{key} ="))
            else:
                table.add(key, said["default"])
        if name == "data":
            _column_comments(table, chosen)
        document.add(name, table)
        if name == "strategy" and issubclass(chosen, ClassificationTask):
            document.add(loss)
    return tomlkit.dumps(document)


def _column_comments(table: Any, task: type[Task[Any]]) -> None:
    import tomlkit

    for column in task.columns:
        need = "always needed" if column.needed == "always" else f"needed to {column.needed}" if (
            column.needed == "train") else "optional"
        table.add(tomlkit.comment(f"the column of the {column.role} ({need}); found by name when left out"))
        table.add(tomlkit.comment(f'{column.role} = "{column.names[0]}"'))

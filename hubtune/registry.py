"""Finds plugins, checks them and names them, and keeps a broken one apart from the others.

Plugins come through the entry points of the group `hubtune`, one module each; the first-party ones too.
`HUBTUNE_PLUGINS` chooses among them: `none`, `own`, or names with commas.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any, TypeVar, cast

import pluggy

from hubtune import contract
from hubtune.contract import CONTRACT, Plugin, Strategy, Task
from hubtune.errors import (
    BrokenPlugin,
    ContractMismatch,
    HubtuneError,
    MissingExtra,
    PluginError,
    UnknownPlugin,
    did_you_mean,
    listing,
)
from hubtune.recipe import Chosen, fill

GROUP = "hubtune"
PluginT = TypeVar("PluginT", bound=Plugin[Any])


@dataclass
class Found:
    """A plugin module and what became of it."""

    name: str
    version: str
    source: str
    status: str = "ok"
    reason: str | None = None
    error: Exception | None = None
    tasks: list[str] = field(default_factory=list)
    strategies: list[str] = field(default_factory=list)

    def set_apart(self, status: str, error: Exception) -> None:
        """Keep the plugin out of everything, with the reason."""
        self.status, self.error = status, error
        self.reason = error.message if isinstance(error, HubtuneError) else f"{type(error).__name__}: {error}"


class Registry:
    """The tasks and strategies there are, by name, and the plugins they come from."""

    def __init__(self) -> None:
        self.plugins: list[Found] = []
        self.tasks: dict[str, type[Task[Any]]] = {}
        self.strategies: dict[str, type[Strategy[Any]]] = {}
        self._origin: dict[type, Found] = {}

    def add(self, name: str, load: Callable[[], object], *, version: str = "", source: str = "") -> Found:
        """Load one plugin module and take its classes; whatever it raises stays with it."""
        found = Found(name, version, source)
        self.plugins.append(found)
        try:
            module = load()
            manager = pluggy.PluginManager(GROUP)
            manager.add_hookspecs(contract)
            manager.register(module, name)
            manager.check_pending()  # a misspelt hook is an error, not silence
            tasks: list[type[Task[Any]]] = [kind for kinds in manager.hook.hubtune_tasks() for kind in kinds]
            strategies: list[type[Strategy[Any]]] = [k for kinds in manager.hook.hubtune_strategies() for k in kinds]
            for task in tasks:
                self._check(task, Task, self.tasks)
            for strategy in strategies:
                self._check(strategy, Strategy, self.strategies)
            if not tasks and not strategies:
                raise BrokenPlugin(f"'{name}' gives neither tasks nor strategies: is a hook missing @hookimpl?")
        except PluginError as error:
            found.set_apart("refused", error)
            return found
        except (Exception, SystemExit) as error:
            found.set_apart("broken", cast(Exception, error))
            return found
        self.tasks |= {task.name: task for task in tasks}
        self.strategies |= {strategy.name: strategy for strategy in strategies}
        found.tasks, found.strategies = [t.name for t in tasks], [s.name for s in strategies]
        self._origin |= dict.fromkeys((*tasks, *strategies), found)
        return found

    def _check(self, kind: Any, parent: type[Plugin[Any]], table: Mapping[str, type[Plugin[Any]]]) -> None:
        label = getattr(kind, "__qualname__", repr(kind))
        if not (isinstance(kind, type) and issubclass(kind, parent)):
            raise BrokenPlugin(f"{label} is not a subclass of hubtune.{parent.__name__}.")
        speaks = getattr(kind, "contract", None)
        if speaks != CONTRACT:
            raise ContractMismatch(f"{label} speaks contract {speaks}; this hubtune speaks {CONTRACT}.")
        wanted = ["name", "summary"]
        if parent is Task:
            wanted += ["columns", "metric", "model", "pipeline_tag"]
        missing = [attribute for attribute in wanted if not hasattr(kind, attribute)]
        if missing:
            raise BrokenPlugin(f"{label} lacks {listing(missing)}.")
        if kind.name in table:
            taken = self._origin[table[kind.name]].name
            raise PluginError(f"{label} claims the name '{kind.name}', which the plugin '{taken}' has.")

    def origin(self, kind: type) -> Found:
        """The plugin that a class came from."""
        return self._origin[kind]

    def task(self, chosen: Chosen) -> Task[Any]:
        """The task with its options, or an error that says what is wrong and what there is."""
        return self._make(self.tasks, chosen, "task", "tasks")

    def strategy(self, chosen: Chosen) -> Strategy[Any]:
        """The strategy with its options, or an error that says what is wrong and what there is."""
        return self._make(self.strategies, chosen, "strategy", "strategies")

    def _make(self, table: dict[str, type[PluginT]], chosen: Chosen, kind: str, kinds: str) -> PluginT:
        plugin = table.get(chosen.name)
        if plugin is None:
            for found in self.plugins:
                if found.name == chosen.name and found.error is not None:
                    raise BrokenPlugin(
                        f"the plugin '{found.name}' of {found.source} is {found.status}: {found.reason}",
                        hint="See all of them with: hubtune plugins",
                    ) from found.error
            raise UnknownPlugin(
                f"no {kind} named '{chosen.name}'.{did_you_mean(chosen.name, table)}"
                f" Installed: {listing(sorted(table), 30) or 'none'}.",
                hint=f"See what each does with: hubtune {kinds}",
            )
        reason = unavailable(plugin)
        if reason:
            raise MissingExtra(f"the {kind} '{chosen.name}' cannot run here: {reason}")
        return plugin(fill(plugin.Options, chosen.options, kind))


def unavailable(plugin: type[Plugin[Any]]) -> str | None:
    """What has to be installed before the plugin can run; None when nothing is missing."""
    missing = [name for name in plugin.needs if importlib.util.find_spec(name) is None]
    if not missing:
        return None
    return f"it needs {listing(missing)}. Install it with: pip install 'hubtune[{plugin.extra}]'"


def load() -> Registry:
    """Every plugin that is installed and wanted."""
    wanted = os.environ.get("HUBTUNE_PLUGINS", "").strip()
    names = {name.strip() for name in wanted.split(",")} if wanted not in ("", "none", "own") else None
    registry = Registry()
    for point in sorted(entry_points(group=GROUP), key=lambda point: (not is_own(point), point.name)):
        version, source = distribution(point)
        off = wanted == "none" or (wanted == "own" and not is_own(point)) or (names is not None and point.name not in names)
        if off:
            registry.plugins.append(Found(point.name, version, source, "off", f"HUBTUNE_PLUGINS={wanted}"))
        else:
            registry.add(point.name, point.load, version=version, source=source)
    return registry


def is_own(point: EntryPoint) -> bool:
    """Whether hubtune itself ships this plugin; these are loaded first, so that nobody takes their names."""
    return distribution(point)[1] == "hubtune"


def distribution(point: EntryPoint) -> tuple[str, str]:
    """Version and name of the distribution behind an entry point."""
    return (point.dist.version, point.dist.name) if point.dist else ("", point.value)


def from_module(module: ModuleType, registry: Registry) -> Found:
    """Add a module that is already imported, as tests and notebooks do."""
    return registry.add(module.__name__, lambda: module, source=module.__name__)

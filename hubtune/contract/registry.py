"""Finds plugins, checks them and names them, and keeps a broken one apart from the others.

Plugins come through the entry points of the group `hubtune`, one module each; the first-party ones too.
`HUBTUNE_PLUGINS` chooses among them: `none`, `own`, or names with commas. Beside them stand loose files (`plugin_files`).
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pluggy

from hubtune.contract import hooks, local_files, migration
from hubtune.contract.class_checks import CORE_COMMANDS, KINDS, WORDS, check_class, kind_of
from hubtune.contract.command import Command
from hubtune.contract.data_format import DataFormat
from hubtune.contract.exporter import Exporter
from hubtune.contract.functions import LossFunction, MetricFunction
from hubtune.contract.plugin import Plugin
from hubtune.contract.strategy import Strategy
from hubtune.contract.task import Task
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
from hubtune.options import fill

if TYPE_CHECKING:
    from hubtune.recipe import PluginChoice

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
    brings: dict[str, list[str]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    """Names of its classes, by kind."""

    def set_apart(self, status: str, error: Exception) -> None:
        """Keep the plugin out of everything, with the reason."""
        self.status, self.error = status, error
        if isinstance(error, ContractMismatch) and error.hint:
            self.reason = f"{error.message} {error.hint}"
        else:
            self.reason = error.message if isinstance(error, HubtuneError) else f"{type(error).__name__}: {error}"

    @property
    def trouble(self) -> str:
        """Why it is set apart, in one line."""
        return f"{self.source or self.name} is {self.status}: {self.reason}"


class Registry:
    """Plugin classes by kind and name, and the modules that they come from."""

    def __init__(self) -> None:
        self.plugins: list[Found] = []
        self.tasks: dict[str, type[Task[Any]]] = {}
        self.strategies: dict[str, type[Strategy[Any]]] = {}
        self.losses: dict[str, type[LossFunction[Any]]] = {}
        self.metrics: dict[str, type[MetricFunction[Any]]] = {}
        self.formats: dict[str, type[DataFormat[Any]]] = {}
        self.commands: dict[str, type[Command[Any]]] = {}
        self.exporters: dict[str, type[Exporter[Any]]] = {}
        self._origin: dict[type, Found] = {}

    def add(self, name: str, load: Callable[[], object], *, version: str = "", source: str = "") -> Found:
        """Load one plugin module and take its classes; whatever it raises stays with it."""
        found = Found(name, version, source)
        self.plugins.append(found)
        try:
            module = load()
            manager = pluggy.PluginManager(GROUP)
            manager.add_hookspecs(hooks)
            manager.register(module, name)
            manager.check_pending()  # a misspelt hook is an error, not silence
            given = {kind: [item for items in getattr(manager.hook, f"hubtune_{kind}")() for item in items] for kind in KINDS}
            for kind, classes in given.items():
                for item in classes:
                    check_class(item, KINDS[kind])
                self._refuse_taken(classes, getattr(self, kind))
            if not any(given.values()):
                raise BrokenPlugin(f"'{name}' gives no {listing(WORDS.values())}: is a hook missing @hookimpl?")
        except PluginError as error:
            found.set_apart("refused", error)
            return found
        except ImportError as error:
            older = migration.mismatch_of_import(error)
            found.set_apart("refused" if older else "broken", older or error)
            return found
        except (Exception, SystemExit) as error:
            found.set_apart("broken", cast(Exception, error))
            return found
        for kind, classes in given.items():
            getattr(self, kind).update({item.name: item for item in classes})
            found.brings[kind] = [item.name for item in classes]
            self._origin |= dict.fromkeys(classes, found)
        return found

    def _refuse_taken(self, kinds: Sequence[type[Plugin[Any]]], table: Mapping[str, type[Plugin[Any]]]) -> None:
        names = [kind.name for kind in kinds]
        for kind in kinds:
            if kind.name in table:
                taken = self._origin[table[kind.name]].name
                raise PluginError(f"{kind.__qualname__} claims the name '{kind.name}', which the plugin '{taken}' has.")
            if names.count(kind.name) > 1:
                raise PluginError(f"two of its classes claim the name '{kind.name}'.")

    def put(self, kind: type[Plugin[Any]]) -> None:
        """Take a class in place of any other of its name, as tests do with what is not installed."""
        if kind in self._origin:
            return
        name = kind_of(kind)
        check_class(kind, KINDS[name])
        getattr(self, name)[kind.name] = kind
        self._origin[kind] = Found(kind.__module__, "", kind.__module__)

    def origin(self, kind: type) -> Found:
        """The plugin that a class, or the class that it specialises, came from."""
        return next(self._origin[made] for made in kind.__mro__ if made in self._origin)

    def came_from(self, kind: type[Plugin[Any]]) -> dict[str, str]:
        """Return where a class came from, for a record: a resume without it says what to install."""
        found = self.origin(kind)
        return {"plugin": found.name, "distribution": found.source, "version": found.version}

    def set_apart(self) -> list[Found]:
        """The plugins that somebody wants and nobody can use."""
        return [found for found in self.plugins if found.error is not None]

    def task(self, chosen: PluginChoice, came: Mapping[str, str] | None = None) -> Task[Any]:
        """The task with its options, or an error that says what is wrong and what there is. came: of a run or a model, where its
        record says that the plugin came from."""
        return self._make(self.tasks, chosen, came)

    def strategy(self, chosen: PluginChoice, came: Mapping[str, str] | None = None) -> Strategy[Any]:
        """The strategy, likewise."""
        return self._make(self.strategies, chosen, came)

    def loss(self, chosen: PluginChoice, came: Mapping[str, str] | None = None) -> LossFunction[Any]:
        """The loss, likewise."""
        return self._make(self.losses, chosen, came)

    def metric(self, name: str, came: Mapping[str, str] | None = None) -> MetricFunction[Any]:
        """The metric, likewise."""
        from hubtune.recipe import PluginChoice  # a list of commands does not need it

        return self._make(self.metrics, PluginChoice(name), came)

    def exporter(self, name: str) -> Exporter[Any]:
        """The exporter, likewise."""
        from hubtune.recipe import PluginChoice

        return self._make(self.exporters, PluginChoice(name), None)

    def _make(self, table: dict[str, type[PluginT]], chosen: PluginChoice, came: Mapping[str, str] | None) -> PluginT:
        kinds = next(kind for kind in KINDS if getattr(self, kind) is table)
        kind = WORDS[kinds]
        plugin = table.get(chosen.name)
        if plugin is None:
            raise self._unknown(kind, kinds, chosen.name, came)
        reason = unavailable(plugin)
        if reason:
            raise MissingExtra(f"the {kind} '{chosen.name}' cannot run here: {reason}")
        made = plugin.for_options(chosen.options)
        return cast(PluginT, made(fill(made.Options, chosen.options, kind)))

    def _unknown(self, kind: str, kinds: str, name: str, came: Mapping[str, str] | None) -> PluginError:
        """The error for a name that no plugin has: that of the broken plugin, or what there is, or what to install."""
        for found in self.plugins:
            if found.name == name and found.error is not None:
                broken = BrokenPlugin(f"the plugin '{found.name}' of {found.trouble}", hint="See all of them with: hubtune plugins")
                broken.__cause__ = found.error
                return broken
        table = getattr(self, kinds)
        named = [found.trouble for found in self.set_apart() if found.source.endswith(".py") or not found.source]
        wrong, ways = self._gone(f"the {kind} '{name}'", came) if came and came["version"] else (
            f"no {kind} named '{name}'.{did_you_mean(name, table)} Installed: {listing(sorted(table), 30) or 'none'}.", [])
        return UnknownPlugin(wrong, hint="\n".join([*ways, *named, f"See what each does with: hubtune {kinds if kinds in CORE_COMMANDS else 'plugins'}"]))

    def _gone(self, what: str, came: Mapping[str, str]) -> tuple[str, list[str]]:
        """Return what to say of a plugin that was here when a record was written, and how to get it back."""
        source, version = came["distribution"], came["version"]
        made = f"this was made with {what} of {source} {version}, which"
        if source.endswith(".py"):
            return f"{made} is not installed.", [f"Name that file with: --plugin {source}"]
        here = [found for found in self.plugins if found.source == source]
        if not here:
            return f"{made} is not installed.", [f"Install it with: pip install {source}=={version}"]
        found = next((found for found in here if found.name == came["plugin"]), here[0])
        if found.status != "ok":
            return f"{made} is {found.status}: {found.reason}", []
        return f"{made} has none of that name in version {found.version}.", [f"Install the other with: pip install {source}=={version}"]


def unavailable(plugin: type[Plugin[Any]]) -> str | None:
    """Return what has to be installed before the plugin can run; None when nothing is missing."""
    missing = [name for name in plugin.requires if not importable(name)]
    if not missing:
        return None
    return f"it needs {listing(missing)}. Install it with: pip install {repr(plugin.extra) if plugin.extra else ' '.join(missing)}"


def importable(name: str) -> bool:
    """Return whether a package is installed; it is not imported."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # of `absent.part`
        return False


def load(hook: str | None = None) -> Registry:
    """Every plugin that is installed and wanted. hook: import only modules that may have this one."""
    wanted = os.environ.get("HUBTUNE_PLUGINS", "").strip()
    names = {name.strip() for name in wanted.split(",")} if wanted not in ("", "none", "own") else None
    registry = Registry()
    points = [point for point in entry_points(group=GROUP) if hook is None or mentions(point.module, hook)]
    for point in sorted(points, key=lambda point: (not is_own(point), point.name)):
        version, source = distribution(point)
        off = wanted == "none" or (wanted == "own" and not is_own(point)) or (names is not None and point.name not in names)
        if off:
            registry.plugins.append(Found(point.name, version, source, "off", f"HUBTUNE_PLUGINS={wanted}"))
        else:
            registry.add(point.name, point.load, version=version, source=source)
    for path in local_files.named():
        registry.add(path.stem, partial(local_files.load, path), version=local_files.version_of(path), source=path.name)
    for name in sorted((names or set()) - {found.name for found in registry.plugins}):
        registry.plugins.append(found := Found(name, "", ""))
        found.set_apart("refused", UnknownPlugin("HUBTUNE_PLUGINS names it, and it is not installed"))
    return registry


def mentions(module: str, word: str) -> bool:
    """Return whether the source of a module, which is not imported, may hold a word; True where it cannot be read."""
    try:
        spec = importlib.util.find_spec(module)
        text = Path(str(spec.origin)).read_text(encoding="utf-8") if spec else ""
    except (ImportError, ValueError, OSError):
        return True
    return word in text or "import *" in text


def is_own(point: EntryPoint) -> bool:
    """Return whether hubtune itself ships this plugin; these are loaded first, so that nobody takes their names."""
    return distribution(point)[1] == "hubtune"


def distribution(point: EntryPoint) -> tuple[str, str]:
    """Return version and name of the distribution behind an entry point; empty where its metadata lack them."""
    if point.dist is None:
        return "", point.value
    metadata = point.dist.metadata  # from Python 3.14 on, reading a missing key warns
    version, name = (metadata[key] if key in metadata else None for key in ("Version", "Name"))  # noqa: SIM401 - it has no `get` by its type
    return version or "", name or point.value


def from_module(module: ModuleType, registry: Registry) -> Found:
    """Add a module that is already imported, as tests and notebooks do."""
    return registry.add(module.__name__, lambda: module, source=module.__name__)

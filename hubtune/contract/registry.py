"""Finds plugins, checks them and names them, and keeps a broken one apart from the others.

Plugins come through the entry points of the group `hubtune`, one module each; the first-party ones too.
`HUBTUNE_PLUGINS` chooses among them: `none`, `own`, or names with commas. Beside them stand loose files (`plugin_files`).
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any, TypeVar, cast

import pluggy

from hubtune.contract import hooks, local_files, migration
from hubtune.contract.data_format import DataFormat
from hubtune.contract.plugin import CONTRACT, Plugin
from hubtune.contract.strategy import OptimizerStrategy, StepStrategy, Strategy
from hubtune.contract.task import ContrastiveTask, GenerativeTask, ReferenceTask, SamplingTask, Task
from hubtune.contract.types import Column, Metric
from hubtune.defaults import OPEN
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
from hubtune.recipe import PluginChoice

GROUP = "hubtune"
KINDS: dict[str, type[Plugin[Any]]] = {"tasks": Task, "strategies": Strategy, "formats": DataFormat}
"""Kinds of plugin classes: each has a hook `hubtune_KIND`."""
CAPABILITIES = (ContrastiveTask, SamplingTask, ReferenceTask, GenerativeTask, StepStrategy, OptimizerStrategy)
"""Base classes for what a plugin can do beyond its kind."""
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
    formats: list[str] = field(default_factory=list)

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
    """Tasks, strategies and data formats by name, and the plugins that they come from."""

    def __init__(self) -> None:
        self.plugins: list[Found] = []
        self.tasks: dict[str, type[Task[Any]]] = {}
        self.strategies: dict[str, type[Strategy[Any]]] = {}
        self.formats: dict[str, type[DataFormat[Any]]] = {}
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
                raise BrokenPlugin(f"'{name}' gives no {listing(KINDS)}: is a hook missing @hookimpl?")
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
            setattr(found, kind, [item.name for item in classes])
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
        name = next(name for name, parent in KINDS.items() if issubclass(kind, parent))
        check_class(kind, KINDS[name])
        getattr(self, name)[kind.name] = kind
        self._origin[kind] = Found(kind.__module__, "", kind.__module__)

    def origin(self, kind: type) -> Found:
        """The plugin that a class, or the class that it specialises, came from."""
        return next(self._origin[made] for made in kind.__mro__ if made in self._origin)

    def set_apart(self) -> list[Found]:
        """The plugins that somebody wants and nobody can use."""
        return [found for found in self.plugins if found.error is not None]

    def task(self, chosen: PluginChoice, came: Mapping[str, str] | None = None) -> Task[Any]:
        """The task with its options, or an error that says what is wrong and what there is. came: of a run or a model, where its
        record says that the plugin came from."""
        return self._make(self.tasks, chosen, "task", "tasks", came)

    def strategy(self, chosen: PluginChoice, came: Mapping[str, str] | None = None) -> Strategy[Any]:
        """The strategy, likewise."""
        return self._make(self.strategies, chosen, "strategy", "strategies", came)

    def _make(self, table: dict[str, type[PluginT]], chosen: PluginChoice, kind: str, kinds: str, came: Mapping[str, str] | None) -> PluginT:
        plugin = table.get(chosen.name)
        if plugin is None:
            for found in self.plugins:
                if found.name == chosen.name and found.error is not None:
                    raise BrokenPlugin(
                        f"the plugin '{found.name}' of {found.trouble}",
                        hint="See all of them with: hubtune plugins",
                    ) from found.error
            named = [found.trouble for found in self.set_apart() if found.source.endswith(".py") or not found.source]
            wrong, ways = self._gone(f"the {kind} '{chosen.name}'", came) if came and came["version"] else (
                f"no {kind} named '{chosen.name}'.{did_you_mean(chosen.name, table)} Installed: {listing(sorted(table), 30) or 'none'}.", [])
            raise UnknownPlugin(wrong, hint="\n".join([*ways, *named, f"See what each does with: hubtune {kinds}"]))
        reason = unavailable(plugin)
        if reason:
            raise MissingExtra(f"the {kind} '{chosen.name}' cannot run here: {reason}")
        made = plugin.for_options(chosen.options)
        return cast(PluginT, made(fill(made.Options, chosen.options, kind)))

    def _gone(self, what: str, came: Mapping[str, str]) -> tuple[str, list[str]]:
        """What to say of a plugin that was here when a record was written, and how to get it back."""
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


def check_class(kind: Any, parent: type[Plugin[Any]]) -> None:
    """Refuse a class that does not follow the contract, before anything lists or runs it."""
    label = getattr(kind, "__qualname__", repr(kind))
    if not (isinstance(kind, type) and issubclass(kind, parent)):
        raise BrokenPlugin(f"{label} is not a subclass of hubtune.{parent.__name__}.")
    if getattr(kind, "contract", None) != CONTRACT:
        raise migration.mismatch_of_class(kind, parent)
    wanted: dict[str, type] = {"name": str, "summary": str}
    if parent is Task:
        wanted |= {"columns": tuple, "metric": Metric, "model": str, "pipeline_tag": str}
    wrong = [f"{name} (a {what.__name__})" for name, what in wanted.items() if not isinstance(getattr(kind, name, None), what)]
    if wrong:
        raise BrokenPlugin(f"{label} lacks {listing(wrong)}.")
    if parent is Task and not all(isinstance(column, Column) for column in kind.columns):  # type: ignore[attr-defined]
        raise BrokenPlugin(f"{label}.columns holds something that is no hubtune.Column.")
    refuse_lacking(kind, parent)
    if not (isinstance(kind.requires, tuple) and all(isinstance(name, str) and name for name in kind.requires)):
        raise BrokenPlugin(f"{label}.requires is no tuple of package names: {kind.requires!r}.")
    wishes = getattr(kind, "defaults", {})
    if not isinstance(wishes, Mapping) or not set(wishes) <= set(OPEN):
        raise BrokenPlugin(f"{label}.defaults holds something other than {listing(OPEN, 20)}: {wishes!r}.")
    if not dataclasses.is_dataclass(kind.Options):
        raise BrokenPlugin(f"{label}.Options is no dataclass.")
    try:
        kind.Options()
        typing.get_type_hints(kind.Options)
    except (TypeError, NameError) as error:
        raise BrokenPlugin(f"{label}.Options has an option without a default, or of an unknown type: {error}.") from error


def refuse_lacking(kind: type[Plugin[Any]], parent: type[Plugin[Any]]) -> None:
    """Refuse a class without a method that every run calls."""
    lacking = sorted(getattr(kind, "__abstractmethods__", ()))
    for base in CAPABILITIES:
        for name in sorted(vars(base).keys() - dir(parent)):
            if issubclass(base, parent) and not issubclass(kind, base) and callable(getattr(kind, name, None)):
                raise BrokenPlugin(f"{kind.__qualname__} has a method `{name}`, which hubtune calls of a {base.__name__} only. "
                                   f"Derive it from {base.__name__}.")
    if lacking:
        raise BrokenPlugin(f"{kind.__qualname__} lacks {listing(f'`{name}`' for name in lacking)}.{misspelt(kind, parent)}")


def misspelt(kind: type[Plugin[Any]], parent: type[Plugin[Any]]) -> str:
    """A method that the contract does not know, beside the one of nearly that name that the class does not have; or nothing."""
    own = {name for made in kind.__mro__ if not issubclass(parent, made) for name in vars(made)} - set(dir(parent))
    left = [name for name in vars(parent) if callable(getattr(parent, name)) and getattr(kind, name) is getattr(parent, name)]
    for name in sorted(own):
        if callable(getattr(kind, name)) and (near := did_you_mean(name, left, cutoff=0.8)):
            return f" It has a method `{name}`, which hubtune never calls.{near}"
    return ""


def unavailable(plugin: type[Plugin[Any]]) -> str | None:
    """What has to be installed before the plugin can run; None when nothing is missing."""
    missing = [name for name in plugin.requires if not importable(name)]
    if not missing:
        return None
    return f"it needs {listing(missing)}. Install it with: pip install {repr(plugin.extra) if plugin.extra else ' '.join(missing)}"


def importable(name: str) -> bool:
    """Whether a package is installed; it is not imported."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # of `absent.part`
        return False


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
    for path in local_files.named():
        registry.add(path.stem, partial(local_files.load, path), version=local_files.version_of(path), source=path.name)
    for name in sorted((names or set()) - {found.name for found in registry.plugins}):
        registry.plugins.append(found := Found(name, "", ""))
        found.set_apart("refused", UnknownPlugin("HUBTUNE_PLUGINS names it, and it is not installed"))
    return registry


def is_own(point: EntryPoint) -> bool:
    """Whether hubtune itself ships this plugin; these are loaded first, so that nobody takes their names."""
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

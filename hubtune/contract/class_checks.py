"""The kinds of plugins, and the checks that a class passes before anything lists or runs it."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from hubtune.contract import migration
from hubtune.contract.command import Command
from hubtune.contract.data_format import DataFormat
from hubtune.contract.exporter import Exporter
from hubtune.contract.functions import LossFunction, MetricFunction
from hubtune.contract.plugin import CONTRACT, Plugin
from hubtune.contract.strategy import OptimizerStrategy, StepStrategy, Strategy
from hubtune.contract.task import (
    ClassificationTask,
    ContrastiveTask,
    GenerativeTask,
    ReferenceTask,
    SamplingTask,
    Task,
)
from hubtune.contract.types import Column, LabelKind, Metric
from hubtune.errors import BrokenPlugin, PluginError, did_you_mean, listing
from hubtune.options import NoOptions

KINDS: dict[str, type[Plugin[Any]]] = {
    "tasks": Task, "strategies": Strategy, "losses": LossFunction, "metrics": MetricFunction,
    "formats": DataFormat, "commands": Command, "exporters": Exporter,
}
"""Kinds of plugin classes: each has a hook `hubtune_KIND`."""
WORDS = {
    "tasks": "task", "strategies": "strategy", "losses": "loss", "metrics": "metric", "formats": "data format",
    "commands": "command", "exporters": "exporter",
}
"""Singular of each kind's name."""
CAPABILITIES = (
    ClassificationTask, ContrastiveTask, SamplingTask, ReferenceTask, GenerativeTask, StepStrategy, OptimizerStrategy,
)
"""Base classes for what a plugin can do beyond its kind."""
CORE_COMMANDS = (
    "check", "evaluate", "losses", "metrics", "plan", "plugin", "plugins", "predict", "publish", "recipe", "reproduce",
    "search", "show", "strategies", "tasks", "train", "verify",
)
"""Names that no command of a plugin may have; `hubtune help` is one, too."""


ATTRIBUTES: dict[type[Plugin[Any]], dict[str, type]] = {
    Task: {"columns": tuple, "metric": Metric, "model": str, "pipeline_tag": str},
    LossFunction: {"kinds": tuple}, MetricFunction: {"kinds": tuple, "higher_is_better": bool},
    DataFormat: {"suffixes": tuple}, Exporter: {"file": str, "tolerance": float, "can_quantize": bool},
}
"""Attributes that a class of a kind has beside its name and summary."""


def kind_of(plugin: type[Plugin[Any]]) -> str:
    """Return the kind of a plugin class, as `KINDS` names it."""
    return next(name for name, parent in KINDS.items() if issubclass(plugin, parent))


def check_class(kind: Any, parent: type[Plugin[Any]]) -> None:
    """Refuse a class that does not follow the contract, before anything lists or runs it."""
    label = getattr(kind, "__qualname__", repr(kind))
    if not (isinstance(kind, type) and issubclass(kind, parent)):
        raise BrokenPlugin(f"{label} is not a subclass of hubtune.{parent.__name__}.")
    if getattr(kind, "contract", None) != CONTRACT:
        raise migration.mismatch_of_class(kind, parent)
    wanted: dict[str, type] = {"name": str, "summary": str, **ATTRIBUTES.get(parent, {})}
    wrong = [f"{name} (a {what.__name__})" for name, what in wanted.items()
             if not isinstance(getattr(kind, name, None), what)]
    if wrong:
        raise BrokenPlugin(f"{label} lacks {listing(wrong)}.")
    refuse_lacking(kind, parent)
    if not (isinstance(kind.requires, tuple) and all(isinstance(name, str) and name for name in kind.requires)):
        raise BrokenPlugin(f"{label}.requires is no tuple of package names: {kind.requires!r}.")
    refuse_values(kind, label)
    if not dataclasses.is_dataclass(kind.Options):
        raise BrokenPlugin(f"{label}.Options is no dataclass.")
    try:
        kind.Options()
        typing.get_type_hints(kind.Options)
    except (TypeError, NameError) as error:
        raise BrokenPlugin(f"{label}.Options has an option without a default, or of an unknown type: {error}.") from error


def refuse_values(kind: Any, label: str) -> None:
    """Refuse attributes of a kind of plugins that hold something else than they may."""
    if issubclass(kind, Task) and not all(isinstance(column, Column) for column in kind.columns):
        raise BrokenPlugin(f"{label}.columns holds something that is no hubtune.Column.")
    if issubclass(kind, Strategy):
        from hubtune.defaults import OPEN  # with the recipe, which a list of commands does not need

        wishes = kind.defaults
        if not isinstance(wishes, Mapping) or not set(wishes) <= set(OPEN):
            raise BrokenPlugin(f"{label}.defaults holds something other than {listing(OPEN, 20)}: {wishes!r}.")
    if issubclass(kind, LossFunction | MetricFunction):
        known = typing.get_args(LabelKind)
        if not kind.kinds or not set(kind.kinds) <= set(known):
            raise BrokenPlugin(f"{label}.kinds holds something other than {listing(known)}: {kind.kinds!r}.")
    if issubclass(kind, MetricFunction) and kind.Options is not NoOptions:
        raise BrokenPlugin(f"{label} has Options; a metric is chosen by its name alone.")
    if issubclass(kind, Command) and kind.name in (*CORE_COMMANDS, "help"):
        raise PluginError(f"{label} claims the name '{kind.name}', which a command of hubtune has.")


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

"""The hooks of a plugin module."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pluggy

from hubtune.contract.command import Command
from hubtune.contract.data_format import DataFormat
from hubtune.contract.exporter import Exporter
from hubtune.contract.functions import LossFunction, MetricFunction
from hubtune.contract.strategy import Strategy
from hubtune.contract.task import Task

hookspec = pluggy.HookspecMarker("hubtune")
hookimpl = pluggy.HookimplMarker("hubtune")


@hookspec
def hubtune_tasks() -> Iterable[type[Task[Any]]]:  # type: ignore[empty-body]
    """The task classes of this plugin module."""


@hookspec
def hubtune_strategies() -> Iterable[type[Strategy[Any]]]:  # type: ignore[empty-body]
    """The strategy classes of this plugin module."""


@hookspec
def hubtune_losses() -> Iterable[type[LossFunction[Any]]]:  # type: ignore[empty-body]
    """The loss classes of this plugin module."""


@hookspec
def hubtune_metrics() -> Iterable[type[MetricFunction[Any]]]:  # type: ignore[empty-body]
    """The metric classes of this plugin module."""


@hookspec
def hubtune_formats() -> Iterable[type[DataFormat[Any]]]:  # type: ignore[empty-body]
    """The data format classes of this plugin module."""


@hookspec
def hubtune_commands() -> Iterable[type[Command[Any]]]:  # type: ignore[empty-body]
    """The subcommand classes of this plugin module."""


@hookspec
def hubtune_exporters() -> Iterable[type[Exporter[Any]]]:  # type: ignore[empty-body]
    """The exporter classes of this plugin module."""

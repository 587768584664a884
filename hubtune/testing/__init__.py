"""Tests for plugin authors: public, and used by hubtune's own tests.

A kit holds the checks that every plugin of a kind has to pass, such as `TaskConformance`: subclass it in a test file
and name your class. `tiny_model` makes a pretrained model in a second, `tiny_for` one that fits a task.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hubtune.testing.commands import CommandConformance
    from hubtune.testing.file_formats import ExporterConformance, FormatConformance
    from hubtune.testing.fixtures import TaskFixture
    from hubtune.testing.functions import LossConformance, MetricConformance
    from hubtune.testing.models import tiny_for, tiny_model
    from hubtune.testing.strategies import StrategyConformance
    from hubtune.testing.tasks import TaskConformance

_LAZY = {
    "CommandConformance": "commands", "ExporterConformance": "file_formats", "FormatConformance": "file_formats", "LossConformance": "functions",
    "MetricConformance": "functions", "StrategyConformance": "strategies", "TaskConformance": "tasks",
    "TaskFixture": "fixtures", "tiny_for": "models", "tiny_model": "models",
}

__all__ = [
    "CommandConformance", "ExporterConformance", "FormatConformance", "LossConformance", "MetricConformance",
    "StrategyConformance", "TaskConformance", "TaskFixture", "tiny_for", "tiny_model",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(f"hubtune.testing.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'hubtune.testing' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__

"""The contract between the core and its plugins: all that a task or a strategy may import.

Nothing heavy is imported here, so that listing plugins stays cheap. Shapes and units are in the docstrings.
"""

from hubtune.contract.hooks import hookimpl, hookspec
from hubtune.contract.plugin import CONTRACT, Plugin
from hubtune.contract.strategy import Strategy
from hubtune.contract.task import Task
from hubtune.contract.types import (
    Base,
    Batch,
    Column,
    Draw,
    Example,
    Export,
    LoadsWith,
    Loss,
    Metric,
    Phase,
    Plan,
    Prediction,
    Row,
    Rows,
    Setup,
)

__all__ = [
    "CONTRACT",
    "Base",
    "Batch",
    "Column",
    "Draw",
    "Example",
    "Export",
    "LoadsWith",
    "Loss",
    "Metric",
    "Phase",
    "Plan",
    "Plugin",
    "Prediction",
    "Row",
    "Rows",
    "Setup",
    "Strategy",
    "Task",
    "hookimpl",
    "hookspec",
]

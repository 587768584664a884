"""The contract between the core and its plugins: all that a task or a strategy may import.

Nothing heavy is imported here, so that listing plugins stays cheap. Shapes and units are in the docstrings.
"""

from hubtune.contract.data_format import DataFormat, FileData
from hubtune.contract.hooks import hookimpl, hookspec
from hubtune.contract.plugin import CONTRACT, Plugin
from hubtune.contract.strategy import Strategy
from hubtune.contract.task import Task
from hubtune.contract.types import (
    Base,
    Batch,
    Column,
    Example,
    ExampleRNG,
    Export,
    LoadsWith,
    Loss,
    Metric,
    ModelSetup,
    Phase,
    Plan,
    Prediction,
    Row,
    Rows,
)

__all__ = [
    "CONTRACT",
    "Base",
    "Batch",
    "Column",
    "DataFormat",
    "Example",
    "ExampleRNG",
    "Export",
    "FileData",
    "LoadsWith",
    "Loss",
    "Metric",
    "ModelSetup",
    "Phase",
    "Plan",
    "Plugin",
    "Prediction",
    "Row",
    "Rows",
    "Strategy",
    "Task",
    "hookimpl",
    "hookspec",
]

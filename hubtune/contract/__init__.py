"""The contract between the core and its plugins: all that a task or a strategy may import.

Nothing heavy is imported here, so that listing plugins stays cheap. Shapes and units are in the docstrings.
"""

from hubtune.contract.data_format import DataFormat, FileData
from hubtune.contract.hooks import hookimpl, hookspec
from hubtune.contract.plugin import CONTRACT, Plugin
from hubtune.contract.strategy import OptimizerStrategy, StepStrategy, Strategy
from hubtune.contract.task import ContrastiveTask, GenerativeTask, ReferenceTask, SamplingTask, Task
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
    "ContrastiveTask",
    "DataFormat",
    "Example",
    "ExampleRNG",
    "Export",
    "FileData",
    "GenerativeTask",
    "LoadsWith",
    "Loss",
    "Metric",
    "ModelSetup",
    "OptimizerStrategy",
    "Phase",
    "Plan",
    "Plugin",
    "Prediction",
    "ReferenceTask",
    "Row",
    "Rows",
    "SamplingTask",
    "StepStrategy",
    "Strategy",
    "Task",
    "hookimpl",
    "hookspec",
]

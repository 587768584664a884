"""The contract between the core and its plugins: all that a plugin may import.

Nothing heavy is imported here, so that listing plugins stays cheap. Shapes and units are in the docstrings.
"""

from hubtune.contract.command import Command, Table
from hubtune.contract.data_format import DataFormat, FileData
from hubtune.contract.functions import LossFunction, MetricFunction
from hubtune.contract.hooks import hookimpl, hookspec
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
from hubtune.contract.types import (
    Base,
    Batch,
    Column,
    Example,
    ExampleRNG,
    Export,
    LabelKind,
    LoadsWith,
    Loss,
    Metric,
    ModelSetup,
    Phase,
    Plan,
    Prediction,
    Row,
    Rows,
    UserCall,
)

__all__ = [
    "CONTRACT",
    "Base",
    "Batch",
    "ClassificationTask",
    "Column",
    "Command",
    "ContrastiveTask",
    "DataFormat",
    "Example",
    "ExampleRNG",
    "Export",
    "FileData",
    "GenerativeTask",
    "LabelKind",
    "LoadsWith",
    "Loss",
    "LossFunction",
    "Metric",
    "MetricFunction",
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
    "Table",
    "Task",
    "UserCall",
    "hookimpl",
    "hookspec",
]

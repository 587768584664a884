"""The contract between the core and its plugins: all that a plugin may import.

Nothing heavy is imported here, so that listing plugins stays cheap. Shapes and units are in the docstrings.
"""

from hubtune.contract.command import Command, Table
from hubtune.contract.data_format import DataFormat, FileData
from hubtune.contract.exporter import Exporter, Graph
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
    BarsPanel,
    Base,
    Batch,
    Box,
    Column,
    Example,
    ExampleRNG,
    Export,
    LabelKind,
    LinesPanel,
    LoadsWith,
    Loss,
    MatrixPanel,
    Metric,
    ModelSetup,
    Panel,
    Phase,
    Plan,
    Prediction,
    Row,
    Rows,
    RowsPanel,
    ShownRow,
    UserCall,
)

__all__ = [
    "CONTRACT",
    "BarsPanel",
    "Base",
    "Batch",
    "Box",
    "ClassificationTask",
    "Column",
    "Command",
    "ContrastiveTask",
    "DataFormat",
    "Example",
    "ExampleRNG",
    "Export",
    "Exporter",
    "FileData",
    "GenerativeTask",
    "Graph",
    "LabelKind",
    "LinesPanel",
    "LoadsWith",
    "Loss",
    "LossFunction",
    "MatrixPanel",
    "Metric",
    "MetricFunction",
    "ModelSetup",
    "OptimizerStrategy",
    "Panel",
    "Phase",
    "Plan",
    "Plugin",
    "Prediction",
    "ReferenceTask",
    "Row",
    "Rows",
    "RowsPanel",
    "SamplingTask",
    "ShownRow",
    "StepStrategy",
    "Strategy",
    "Table",
    "Task",
    "UserCall",
    "hookimpl",
    "hookspec",
]

"""hubtune: tune any open model of the Hugging Face Hub on your own data, prove it, and publish it.

Everything that a user or a plugin may import is here; torch and transformers are imported only when
they work.
"""

import logging
from typing import TYPE_CHECKING, Any

from hubtune.callbacks import Callbacks
from hubtune.contract import (
    CONTRACT,
    Base,
    Batch,
    ClassificationTask,
    Column,
    Command,
    ContrastiveTask,
    DataFormat,
    Example,
    ExampleRNG,
    Export,
    FileData,
    GenerativeTask,
    LabelKind,
    LoadsWith,
    Loss,
    LossFunction,
    Metric,
    MetricFunction,
    ModelSetup,
    OptimizerStrategy,
    Phase,
    Plan,
    Plugin,
    Prediction,
    ReferenceTask,
    Row,
    Rows,
    SamplingTask,
    StepStrategy,
    Strategy,
    Table,
    Task,
    UserCall,
    hookimpl,
)
from hubtune.contract.precision import exact
from hubtune.errors import (
    BadToken,
    BrokenPlugin,
    BusyError,
    Conflict,
    ContractMismatch,
    Corrupt,
    DataError,
    EnvironmentProblem,
    Forbidden,
    Gated,
    HubError,
    HubtuneError,
    MissingExtra,
    ModelError,
    NonFiniteLoss,
    NotFound,
    Offline,
    PluginError,
    ProofError,
    RecipeError,
    ResumeError,
    SealError,
    TrainingError,
    UnexpectedError,
    UnknownPlugin,
    Unsafe,
)
from hubtune.options import option

logging.getLogger(__name__).addHandler(logging.NullHandler())  # silent unless the user logs

if TYPE_CHECKING:
    from hubtune.api import check, compare, data_report, load, plan, reproduce, resume, search, show, train, verify
    from hubtune.data.labels import (
        label_config,
        label_id,
        label_space,
        label_text,
        row_numbers,
        spelled_as,
    )
    from hubtune.data.row_batches import column_values, enumerate_rows
    from hubtune.runs.predictor import Model
    from hubtune.runs.reports.run_list import delete_runs, list_runs
    from hubtune.runs.run import Run

_LAZY = {
    "Model": "hubtune.runs.predictor", "Run": "hubtune.runs.run", "check": "hubtune.api",
    "compare": "hubtune.api",
    "data_report": "hubtune.api", "delete_runs": "hubtune.runs.reports.run_list",
    "list_runs": "hubtune.runs.reports.run_list",
    "load": "hubtune.api", "plan": "hubtune.api", "resume": "hubtune.api", "search": "hubtune.api",
    "show": "hubtune.api", "train": "hubtune.api", "reproduce": "hubtune.api",
    "verify": "hubtune.api",
    "label_config": "hubtune.data.labels", "label_id": "hubtune.data.labels",
    "label_space": "hubtune.data.labels", "label_text": "hubtune.data.labels",
    "row_numbers": "hubtune.data.labels", "spelled_as": "hubtune.data.labels",
    "column_values": "hubtune.data.row_batches", "enumerate_rows": "hubtune.data.row_batches",
}

__all__ = [
    "CONTRACT",
    "BadToken",
    "Base",
    "Batch",
    "BrokenPlugin",
    "BusyError",
    "Callbacks",
    "ClassificationTask",
    "Column",
    "Command",
    "Conflict",
    "ContractMismatch",
    "ContrastiveTask",
    "Corrupt",
    "DataError",
    "DataFormat",
    "EnvironmentProblem",
    "Example",
    "ExampleRNG",
    "Export",
    "FileData",
    "Forbidden",
    "Gated",
    "GenerativeTask",
    "HubError",
    "HubtuneError",
    "LabelKind",
    "LoadsWith",
    "Loss",
    "LossFunction",
    "Metric",
    "MetricFunction",
    "MissingExtra",
    "Model",
    "ModelError",
    "ModelSetup",
    "NonFiniteLoss",
    "NotFound",
    "Offline",
    "OptimizerStrategy",
    "Phase",
    "Plan",
    "Plugin",
    "PluginError",
    "Prediction",
    "ProofError",
    "RecipeError",
    "ReferenceTask",
    "ResumeError",
    "Row",
    "Rows",
    "Run",
    "SamplingTask",
    "SealError",
    "StepStrategy",
    "Strategy",
    "Table",
    "Task",
    "TrainingError",
    "UnexpectedError",
    "UnknownPlugin",
    "Unsafe",
    "UserCall",
    "check",
    "column_values",
    "compare",
    "data_report",
    "delete_runs",
    "enumerate_rows",
    "exact",
    "hookimpl",
    "label_config",
    "label_id",
    "label_space",
    "label_text",
    "list_runs",
    "load",
    "option",
    "plan",
    "reproduce",
    "resume",
    "row_numbers",
    "search",
    "show",
    "spelled_as",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'hubtune' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__

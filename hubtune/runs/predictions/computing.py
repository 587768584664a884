"""Compute the predictions of rows that are loaded, in one number format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hubtune.callbacks import Callbacks
from hubtune.contract import GenerativeTask, Prediction, Task
from hubtune.contract.validation import checked
from hubtune.data.row_batches import BatchedRows
from hubtune.errors import DataError, RecipeError, listing
from hubtune.models.foreign import processor_errors
from hubtune.runs.predictions.opening import OpenedModel

if TYPE_CHECKING:
    from hubtune.data.dataset import EncodedDataset
    from hubtune.devices.device import Compute

PRECISIONS = ("fp32", "bf16", "auto")
"""Number formats of the matrix products of a prediction."""


def check_precision(precision: str) -> None:
    """Refuse an unknown number format."""
    if precision not in PRECISIONS:
        raise RecipeError(f"unknown precision '{precision}' of predictions.",
                          hint=f"Choose one of: {listing(PRECISIONS)}")


def predict_rows(
    model: OpenedModel, rows: Any, description: str, callbacks: Callbacks, precision: str = "fp32"
) -> list[Prediction]:
    """Encode and predict rows, with progress under `description`."""
    encoded = encode_rows(model, rows)
    callbacks.on_progress_start(description, len(encoded.examples))
    compute = choose_compute(precision, encoded)
    if compute.precision != "fp32":
        callbacks.on_info(f"{description} in {compute.precision}")
    predictions = predict_encoded(model, rows, encoded, compute, callbacks.on_progress)
    callbacks.on_progress_end()
    return predictions


def encode_rows(model: OpenedModel, rows: Any) -> EncodedDataset:
    """Encode rows for a model, truncated to what it can take."""
    from hubtune.data import encoding

    _, base = model.load_weights()
    with processor_errors(model.origin.repo):
        return encoding.encode(model.task, rows, base, base.max_length)


def predict_encoded(
    model: OpenedModel, rows: Any, encoded: EncodedDataset, compute: Compute,
    on_progress: Callable[[int], None],
) -> list[Prediction]:
    """Predict rows that are encoded, one prediction per row, in order."""
    from hubtune.acceleration import kernels
    from hubtune.devices import device
    from hubtune.evaluation.inference import Predictor
    from hubtune.evaluation.model_checks import depends_on_padding

    module, base = model.load_weights()
    uniform = len(encoded.examples) > 1 and depends_on_padding(module, model.task, base, encoded)
    predictor = Predictor(module, model.task, base, uniform, on_progress=on_progress)
    with (device.device_settings(compute), kernels.use_kernels(module, compute.kernels),
          device.autocast(compute)):
        return predictor.predict(rows, encoded)


def decided(model: OpenedModel, predictions: Sequence[Prediction]) -> list[Prediction]:
    """Apply the decisions of training to predictions."""
    from hubtune.evaluation import decisions

    return list(decisions.apply(model.task, predictions, model.decisions))


def shown(model: OpenedModel, predictions: Sequence[Prediction]) -> list[Prediction]:
    """Apply the decisions of training; return what users see of each prediction."""
    return [checked(model.task, "show", model.task.show(found))
            for found in decided(model, predictions)]


def choose_compute(precision: str, encoded: EncodedDataset) -> Compute:
    """Choose how predictions are computed; for few examples without a look at the device."""
    from hubtune.devices import device
    from hubtune.evaluation.batches import MAX_EXAMPLES

    if len(encoded.examples) <= MAX_EXAMPLES and precision != "auto":
        return device.default_settings(precision)
    return device.choose(precision, allowed=("bf16",))


def as_rows(data: Any, task: Task[Any]) -> Any:
    """Return texts as rows with the task's input; other data as it is.

    Raises:
        DataError: texts, for a task that needs several columns.
    """
    is_list = isinstance(data, Sequence) and not isinstance(data, str)
    if not (is_list and data and isinstance(data[0], str)):
        return data
    always = [column.role for column in task.columns if column.needed == "always"]
    role = task.input or (always[0] if len(always) == 1 else None)
    if role is None:
        raise DataError(f"'{task.name}' needs {listing(always)}: give rows, not texts.",
                        hint="With --data FILE, which has these columns.")
    return [{role: text} for text in data]


def drop_labels(rows: Any, task: Task[Any]) -> Any:
    """Remove what a prediction must not see, and may not know."""
    labels = [column.role for column in task.columns if column.target]
    rows = rows.remove_columns([role for role in labels if role in rows.column_names])
    if isinstance(task, GenerativeTask):
        return [task.question(row) for row in BatchedRows(rows)]
    return rows



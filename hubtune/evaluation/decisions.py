"""Decisions that a task fits on validation predictions, such as thresholds, and predictions that follow them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hubtune.contract import Base, ClassificationTask, Prediction, Task
from hubtune.contract.validation import checked
from hubtune.errors import ModelError


def fit(
    task: Task[Any], predictions: Sequence[Prediction], rows: Sequence[Any], base: Base
) -> dict[str, Any]:
    """Fit what turns the model's probabilities into answers; empty where nothing is asked for."""
    if not isinstance(task, ClassificationTask):
        return {}
    return checked(task, "fit_decisions", task.fit_decisions(predictions, rows, base))


def apply(
    task: Task[Any], predictions: Sequence[Prediction], decisions: Mapping[str, Any]
) -> Sequence[Prediction]:
    """Return predictions as the decisions have them.

    Raises:
        ModelError: the decisions, which lie beside the weights, do not fit the model.
    """
    if not decisions or not isinstance(task, ClassificationTask):
        return predictions
    try:
        return [checked(task, "decide", task.decide(found, decisions)) for found in predictions]
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ModelError(
            f"its decisions do not fit its labels ({type(error).__name__}: {error}).",
            where="hubtune.json", hint="Restore the file as it was published, or remove its `decisions`.",
        ) from error

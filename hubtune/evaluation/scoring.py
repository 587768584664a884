"""Scores of all splits that are not trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hubtune.callbacks import Callbacks
from hubtune.contract import GenerativeTask, Prediction, Rows
from hubtune.data.dataset import EncodedDataset
from hubtune.data.row_batches import BatchedRows
from hubtune.evaluation import decisions, metrics

if TYPE_CHECKING:
    from hubtune.evaluation.inference import Predictor

RESULTS = {
    "metrics": "metrics", "intervals": "intervals", "no_intervals": "no_intervals",
    "baselines": "baselines", "warnings": "score_warnings", "report": "reports",
    "undecided": "undecided",
}
"""Keys of `metrics.evaluate`, and those of `run.json`, by split."""


Observe = Callable[[str, Sequence[Prediction], Sequence[Any]], None]
"""Called with a split, its predictions as the decisions have them, and its rows."""


def ignore(split: str, predictions: Sequence[Prediction], rows: Sequence[Any]) -> None:
    """Observe nothing."""


def evaluate(
    predictor: Predictor, rows: Mapping[str, Rows], encoded: Mapping[str, EncodedDataset],
    callbacks: Callbacks, observe: Observe = ignore, validated: Sequence[Prediction] | None = None,
) -> dict[str, Any]:
    """Compute metrics and what they have to be read with, on every split but train.

    Decisions are fitted on validation, and hold for all splits.

    Args:
        rows: by split, and `encoded` the same rows.
        observe: sees the predictions of every split.
        validated: predictions of the validation rows, if the model's weights were validated before;
            not used for a task that generates.

    Returns:
        A part of `run.json`.
    """
    record: dict[str, dict[str, Any]] = {key: {} for key in RESULTS.values()}
    fitted: dict[str, Any] = {}
    task, base = predictor.task, predictor.base
    for split in sorted(rows, key=lambda name: name != "validation"):
        listed = list(BatchedRows(rows[split]))
        if split == "validation" and validated is not None and not isinstance(task, GenerativeTask):
            predictions = list(validated)
        else:
            callbacks.on_progress_start(f"evaluating {split}", len(encoded[split].examples))
            predictions = predictor.predict(listed, encoded[split])
            callbacks.on_progress_end()
        if split == "validation":
            fitted = decisions.fit(task, predictions, listed, base)
            for note in fitted.get("notes", ()):
                callbacks.on_info(note)
        result = metrics.evaluate(task, predictions, listed, base, fitted)
        observe(split, decisions.apply(task, predictions, fitted), listed)
        for name, key in RESULTS.items():
            record[key][split] = result[name]
        for warning in result["warnings"]:
            callbacks.on_warning(f"on {split}: {warning}")
    return {**record, "decisions": fitted}

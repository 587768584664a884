"""The cost of int8: the task's score of the trained model and of the file, on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hubtune.callbacks import Callbacks
from hubtune.contract import registry
from hubtune.data import encoding, splits
from hubtune.data.columns import add_task_columns
from hubtune.data.row_batches import BatchedRows
from hubtune.errors import DataError, HubtuneError
from hubtune.evaluation.paired import Answers, difference
from hubtune.runs import functions
from hubtune.runs.exports import proof
from hubtune.runs.predictions import computing
from hubtune.runs.predictor import Model
from hubtune.runs.run import Run
from hubtune.runs.standing import NotComparable, held_out_rows


def compare(
    model: Model, module: Any, folder: Path, usage: str, inputs: Sequence[str], data: Any, callbacks: Callbacks
) -> dict[str, Any]:
    """Score the trained model and an exported file on labelled rows.

    Returns:
        `metric`, `rows`, `split`, `before`, `after`, `difference` with its interval, and a `text`; without
        labelled rows a `text` that says so.
    """
    from hubtune.evaluation import metrics
    from hubtune.evaluation.inference import Predictor

    rows = labelled_rows(model, data, callbacks)
    if rows is None:
        return {"metric": None, "text": "what it costs of the score was not measured; measure it with --data ROWS."}
    split, listed = rows[0], list(BatchedRows(rows[1]))
    task, base = model.task, model.load_weights()[1]
    metric = model.model_record.get("metric") or metrics.deciding(task, base).name
    encoded = encoding.encode(task, rows[1], base, base.max_length)
    callbacks.on_info(f"Scoring {len(listed)} {split} rows with both")
    plain = Predictor(module, task, base).validate(listed, encoded).predictions
    ours = proof.predictions(folder, usage, task, base, module.config, listed, encoded, inputs)
    before, after = (Answers(task, base, computing.decided(model, found)) for found in (plain, ours))
    scores = [one.score(one.predictions, listed) for one in (before, after)]
    found = difference(metric, after, before, listed)
    return {"metric": metric, "split": split, "rows": len(listed), "before": scores[0][metric], "after": scores[1][metric],
            "difference": found.as_json(),
            "text": f"{metric} {scores[0][metric]:.4f} before and {scores[1][metric]:.4f} after, on {len(listed)} {split} rows."}


def labelled_rows(model: Model, data: Any, callbacks: Callbacks) -> tuple[str, Any] | None:
    """Return rows with labels: those given, or those that a run held out; None where there are none."""
    functions.choose_metrics(registry.load(), model.task, model.model_record.get("metrics", {}))
    if data is None:
        if not isinstance(model, Run):
            return None
        try:
            return held_out_rows(model.folder, model.record, None)
        except (NotComparable, HubtuneError) as error:
            callbacks.on_warning(f"the run's rows are not there: {error}")
            return None
    found = splits.evaluation_split(data, None, model.task.columns, model.model_record.get("columns", {}), needs_labels=True,
                                    say=callbacks.on_info)
    name, rows = next(iter(found.splits.items()))
    if not len(rows):
        raise DataError("there are no rows to score.")
    return name, add_task_columns(rows, model.task)

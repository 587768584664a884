"""Compare finished runs in pairs, on the same held-out rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hubtune.callbacks import Callbacks
from hubtune.contract import registry
from hubtune.data.row_batches import BatchedRows
from hubtune.errors import HubtuneError
from hubtune.evaluation.paired import Answers, difference, differences_by_row
from hubtune.runs import functions
from hubtune.runs.run import Run
from hubtune.runs.standing import (
    NOT_COMPARABLE,
    NotComparable,
    answer,
    check_comparable,
    held_out_rows,
)

MOST_ROWS = 10_000
"""Rows beyond which it is not found out which of them are scored differently."""
SHOWN = 10
"""Rows that are listed in each direction."""


def compare_runs(runs: Sequence[Run], data: Any, callbacks: Callbacks) -> list[dict[str, Any]]:
    """Compare each run with the first: the paired difference of the metric that chose its weights.

    Args:
        data: the runs' rows, where they came from memory.

    Returns:
        For each run but the first, `run` and `against` (folders), `split` and `rows`,
        `difference` (new: the run's), `verdict`, `text`, and `changed`: how many rows only one of
        the two answers better, and the first numbers of them; or the `reason` for which they cannot
        be compared.
    """
    first, *others = runs
    try:
        split, rows = held_out_rows(first.folder, first.record, data)
    except (NotComparable, *NOT_COMPARABLE) as error:
        return [not_compared(run, first, error) for run in others]
    listed, found = list(BatchedRows(rows)), []
    metrics = first.record["plugins"].get("metrics", {})
    theirs: Answers | None = None
    for run in others:
        try:
            check_rows(run, split, listed, data)
            check_comparable(run, first, first.record)
            if theirs is None:
                theirs = predictions_of(first, metrics, split, rows, callbacks)
            ours = predictions_of(run, metrics, split, rows, callbacks)
        except (NotComparable, *NOT_COMPARABLE) as error:
            found.append(not_compared(run, first, error))
            continue
        found.append(pair(run, first, split, ours, theirs, listed))
    return found


def predictions_of(
    run: Run, metrics: Mapping[str, Any], split: str, rows: Any, callbacks: Callbacks
) -> Answers:
    """Predict the rows with a run's model, opened anew, so that one model is in memory at a time.

    metrics: those to score it by, and the plugin of each.
    """
    callbacks.on_info(f"Predicting {len(rows)} {split} rows with {run.folder}")
    opened = Run(run.folder, trust_code=run.trust_code)
    functions.choose_metrics(registry.load(), opened.task, metrics)
    return answer(opened, rows, callbacks)


def not_compared(run: Run, first: Run, error: Exception) -> dict[str, Any]:
    """Return the entry of a run that cannot be compared."""
    reason = error.message if isinstance(error, HubtuneError) else str(error)
    return {"run": str(run.folder), "against": str(first.folder), "verdict": "not compared",
            "reason": reason, "text": f"{run.folder} cannot be compared with {first.folder}: "
                                      f"{reason.rstrip('.')}."}


def check_rows(run: Run, split: str, rows: list[Any], data: Any) -> None:
    """Require that a run has the same held-out rows, so that it was not trained on them.

    Raises:
        NotComparable: it has others.
    """
    own_split, own = held_out_rows(run.folder, run.record, data)
    if own_split != split or list(BatchedRows(own)) != rows:
        held_out = str(run.record["data"]["checks"].get("validation", "")).startswith("held out")
        why = " (they are held out from train by each run's seed)" if held_out else ""
        raise NotComparable(f"its {own_split} rows are not the other run's {split} rows{why}; "
                            "runs with the same test split can be compared")


def pair(
    run: Run, first: Run, split: str, ours: Answers, theirs: Answers, rows: list[Any]
) -> dict[str, Any]:
    """Return the entry of a comparison."""
    metric = first.record["task"]["metric"]
    found = difference(metric, ours, theirs, rows)
    verdict = {"better": "better than", "worse": "worse than",
               "uncertain": "not certainly different from"}[found.verdict]
    changed = changed_rows(metric, ours, theirs, rows) if len(rows) <= MOST_ROWS else None
    text = (f"{run.folder} is {verdict} {first.folder}: on the same {len(rows)} {split} rows, "
            f"{found.text()}.")
    if changed is not None:
        text += (f" It answers {changed['better']['count']} rows better and "
                 f"{changed['worse']['count']} worse.")
    return {"run": str(run.folder), "against": str(first.folder), "verdict": found.verdict,
            "reason": None, "text": text, "split": split, "rows": len(rows),
            "difference": found.as_json(), "changed": changed}


def changed_rows(
    metric: str, ours: Answers, theirs: Answers, rows: list[Any]
) -> dict[str, dict[str, Any]]:
    """Return the rows that one of two models answers better, by their own scores.

    `numbers` counts rows from 1. A row without a score of its own, as under a correlation, is in
    neither list.
    """
    values: dict[str, list[int]] = {"better": [], "worse": []}
    every = [[number] for number in range(len(rows))]
    for (number,), value in differences_by_row(metric, ours, theirs, every, rows):
        if value > 0:
            values["better"].append(number + 1)
        elif value < 0:
            values["worse"].append(number + 1)
    return {name: {"count": len(numbers), "numbers": numbers[:SHOWN]}
            for name, numbers in values.items()}

"""`report.json` beside `run.json`: predictions and curves for the page of a run, never published."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hubtune.callbacks import Callbacks
from hubtune.contract import Base, Prediction, Task
from hubtune.runs.page import panels

KEPT = "report.json"
"""Panels of the test rows, and lengths of the training rows."""
PAGE = "report.html"
BINS = 30
"""Bars of the histogram of lengths."""


def observer(
    folder: Path, task: Task[Any], base: Base, splits: Sequence[str], sizes: Any,
    callbacks: Callbacks, *, with_rows: bool,
) -> Callable[[str, Sequence[Prediction], Sequence[Any]], None]:
    """Return what keeps the panels of the test rows, or else of the validation rows, as they are evaluated.

    A plugin that fails here costs its panels, not the run: weights that took hours are not saved yet.

    Args:
        sizes: of the training examples, in the task's unit.
    """
    wanted = "test" if "test" in splits else "validation"

    def observe(split: str, predictions: Sequence[Prediction], rows: Sequence[Any]) -> None:
        if split != wanted:
            return
        found: list[dict[str, Any]] = []
        try:
            found = panels.collect(task, predictions, rows, base, with_rows=with_rows)
        except Exception as error:
            callbacks.on_warning(f"the page of the run lacks the panels of '{task.name}', whose `panels` failed: "
                                 f"{type(error).__name__}: {error}")
        kept = {"split": split, "unit": task.unit, "panels": found, "lengths": histogram(sizes)}
        (folder / KEPT).write_text(json.dumps(kept, ensure_ascii=False) + "\n", encoding="utf-8")

    return observe


def histogram(sizes: Any) -> dict[str, list[int]]:
    """Count sizes in bins of equal width. edges: of the bins, one more than counts; the last bin has both its ends."""
    low, high = int(np.min(sizes)), int(np.max(sizes)) + 1
    width = max(1, -(-(high - low) // BINS))
    edges = np.arange(low, high + width, width)
    return {"edges": edges.tolist(), "counts": np.histogram(sizes, edges)[0].tolist()}


def read(folder: Path) -> Mapping[str, Any]:
    """Read what a run kept; empty for a run of an earlier version."""
    try:
        found = json.loads((folder / KEPT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}

"""Panels of a run's page: what the task shows of its predictions, and rows to look at, as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isfinite
from typing import Any

from hubtune.contract import Base, Column, Panel, Prediction, RowsPanel, ShownRow, Task
from hubtune.contract.validation import checked
from hubtune.evaluation import metrics

SHOWN = 12
"""Rows on the page."""
SCORED = 200
"""Rows that are scored one by one, where the task does not say which are worst."""
LONGEST = 600
"""Characters of a text on the page."""
LARGEST = 200_000
"""Characters of a `data:` address; a larger image or sound is left out."""


def collect(
    task: Task[Any], predictions: Sequence[Prediction], rows: Sequence[Any], base: Base, *,
    with_rows: bool,
) -> list[dict[str, Any]]:
    """Return the panels of some predictions as JSON, each with its `kind` ("matrix", "lines", "bars", "rows").

    with_rows: whether rows may be shown; without, no panel holds a row.
    """
    found = list(checked(task, "panels", task.panels(predictions, rows, base)))
    if not with_rows:
        found = [panel for panel in found if not isinstance(panel, RowsPanel)]
    elif not any(isinstance(panel, RowsPanel) for panel in found):
        found.append(lowest_rows(task, predictions, rows, base))
    return [as_json(panel, task.columns, rows) for panel in found]


def as_json(panel: Panel, columns: Sequence[Column], rows: Sequence[Any]) -> dict[str, Any]:
    """Return a panel as JSON; rows are ordered, cut to the first, and get their texts and numbers from 1."""
    kind = type(panel).__name__.removesuffix("Panel").lower()
    if not isinstance(panel, RowsPanel):
        return {"kind": kind, **asdict(panel)}
    worst = sorted(panel.rows, key=lambda shown: -shown.badness)[:SHOWN]
    return {"kind": kind, "title": panel.title, "note": panel.note,
            "rows": [described(shown, columns, rows[shown.row]) for shown in worst]}


def described(shown: ShownRow, columns: Sequence[Column], row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with its texts, cut to what a page holds."""
    media = shown.media if shown.media is not None and len(shown.media) <= LARGEST else None
    texts = {column.role: text_of(row[column.role]) for column in columns
             if not column.target and column.kind not in ("image", "audio") and row.get(column.role) is not None}
    return {**asdict(shown), "row": shown.row + 1, "texts": texts, "media": media,
            "expected": cut(shown.expected), "given": cut(shown.given)}


def lowest_rows(
    task: Task[Any], predictions: Sequence[Prediction], rows: Sequence[Any], base: Base
) -> RowsPanel:
    """Return the rows that score lowest by themselves, among the first."""
    metric = metrics.deciding(task, base)
    targets = [column.role for column in task.columns if column.target]
    shown = []
    for number, (prediction, row) in enumerate(zip(predictions[:SCORED], rows, strict=False)):
        try:
            value = metrics.score(task, [prediction], [row], base).get(metric.name, float("nan"))
        except (ValueError, ZeroDivisionError):  # a row alone may have no score
            continue
        if isfinite(value):
            expected = "\n".join(text_of(row[role]) for role in targets if row.get(role) is not None)
            given = text_of(checked(task, "show", task.show(prediction)))
            shown.append(ShownRow(number, expected, given, -value if metric.higher_is_better else value))
    among = "" if len(rows) <= SCORED else f" among the first {SCORED}"
    return RowsPanel("Worst rows", shown, note=f"The rows with the worst {metric.name}{among}, each scored by itself.")


def text_of(value: Any) -> str:
    """Return a value as text: words joined, tables as JSON."""
    if isinstance(value, str):
        return cut(value)
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return cut(" ".join(value))
    if isinstance(value, dict) and len(value) == 1:
        return text_of(next(iter(value.values())))
    return cut(json.dumps(rounded(value), ensure_ascii=False, default=lambda other: f"({type(other).__name__})"))


def rounded(value: Any) -> Any:
    """Return a value whose numbers have 4 decimals."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {str(name): rounded(item) for name, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value


def cut(text: str) -> str:
    """Return a text as long as a page holds it."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} … ({len(text):,} characters)"

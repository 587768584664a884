"""Predictions as lines and files: JSONL with everything, CSV with what fits in cells."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hubtune.errors import RecipeError

LONGEST = 400
"""Characters of a value on a line."""
PLAIN = (str, int, float, bool, type(None))


def write(predictions: Sequence[dict[str, Any]], path: Path) -> None:
    """Write a .jsonl or a .csv file; several labels stand in one cell with `|` between them."""
    if path.suffix not in (".jsonl", ".csv"):
        raise RecipeError(f"--out writes .jsonl or .csv, not '{path.name}'.")
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(p, ensure_ascii=False) + "\n" for p in predictions), encoding="utf-8")
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = [cells(prediction) for prediction in predictions]
        writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)


def cells(prediction: dict[str, Any]) -> dict[str, Any]:
    """The plain values of a prediction, and its lists as one cell each."""
    found = {key: value for key, value in prediction.items() if isinstance(value, PLAIN)}
    return found | {key: "|".join(map(str, value)) for key, value in prediction.items() if isinstance(value, list)}


def lines(predictions: Sequence[dict[str, Any]], texts: Sequence[str] | None) -> list[str]:
    """One line per row for a terminal: the answer, how sure, and the text where there is one."""
    said = []
    for prediction in predictions:
        values = {key: value for key, value in cells(prediction).items() if key != "row"}
        line = "  ".join(f"{v:.4f}" if isinstance(v, float) else short(v) for v in values.values())
        said.append(f"{line}  {texts[prediction['row']]}" if texts else f"{prediction['row']}  {line}")
    return said


def short(value: Any) -> str:
    """A value as it fits on a terminal; --json and --out have all of it."""
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."

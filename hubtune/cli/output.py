"""Predictions as lines and files: JSONL with everything, CSV with what fits in cells.

A spreadsheet runs a cell that begins as a formula, so such texts get a `'` before them in CSV.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hubtune.errors import RecipeError

LONGEST = 400
"""Characters of a value on a line."""
PLAIN = (str, int, float, bool, type(None))
FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")
"""Beginnings of cells that spreadsheets run as formulas, full-width signs among them."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters but tab and line feed, which a terminal would obey."""


def write(predictions: Sequence[dict[str, Any]], path: Path) -> int:
    """Write a .jsonl or a .csv file; several labels stand in one cell with `|` between them.

    Returns:
        The number of cells that were escaped, as they began like formulas.
    """
    if path.suffix not in (".jsonl", ".csv"):
        raise RecipeError(f"--out writes .jsonl or .csv, not '{path.name}'.")
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(p, ensure_ascii=False) + "\n" for p in predictions), encoding="utf-8")
        return 0
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = [cells(prediction) for prediction in predictions]
        writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(key for row in rows for key in row)))
        safe = [{key: without_formula(value) for key, value in row.items()} for row in rows]
        writer.writeheader()
        writer.writerows(safe)
    return sum(value != row[key] for row, written in zip(rows, safe, strict=True) for key, value in written.items())


def without_formula(value: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula; numbers stay as they are."""
    if isinstance(value, str) and FORMULA.match(value) and not NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def cells(prediction: dict[str, Any]) -> dict[str, Any]:
    """The plain values of a prediction, and its lists as one cell each."""
    found = {key: value for key, value in prediction.items() if isinstance(value, PLAIN)}
    return found | {key: "|".join(map(str, value)) for key, value in prediction.items() if isinstance(value, list)}


def lines(predictions: Sequence[dict[str, Any]], texts: Sequence[str] | None) -> list[str]:
    """One line per row for a terminal: the answer, how sure, and the text where there is one."""
    said = []
    for prediction in predictions:
        values = {key: value for key, value in cells(prediction).items() if key != "row"}
        if values.pop("abstained", False):
            values["label"] = "(abstains)"
        line = "  ".join(f"{v:.4f}" if isinstance(v, float) else short(v) for v in values.values())
        said.append(f"{line}  {texts[prediction['row']]}" if texts else f"{prediction['row']}  {line}")
    return said


def printable(text: str) -> str:
    """Write control characters that a terminal would obey as escapes: ESC becomes `\\x1b`."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def short(value: Any) -> str:
    """A value as it fits on a terminal, without its control characters; --json and --out have all of it."""
    text = printable(str(value))
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."

"""Predictions as cells of a table, and cells that no spreadsheet takes for a formula."""

from __future__ import annotations

import re
from typing import Any

PLAIN = (str, int, float, bool, type(None))
FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")
"""Beginnings of cells that spreadsheets run as formulas, full-width signs among them."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def without_formula(value: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula; numbers stay as they are."""
    if isinstance(value, str) and FORMULA.match(value) and not NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def cells(prediction: dict[str, Any]) -> dict[str, Any]:
    """The plain values of a prediction, and its lists as one cell each."""
    found = {key: value for key, value in prediction.items() if isinstance(value, PLAIN)}
    return found | {key: "|".join(map(str, value)) for key, value in prediction.items() if isinstance(value, list)}

"""Predictions as lines for a terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from hubtune.runs.predictions.cells import cells

LONGEST = 400
"""Characters of a value on a line."""
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters but tab and line feed, which a terminal would obey."""


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

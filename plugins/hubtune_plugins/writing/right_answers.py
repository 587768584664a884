"""Right answers of tasks that write, for test data."""

from __future__ import annotations

from typing import Any

from hubtune import Base, Row
from hubtune_plugins.writing.likelihood import IGNORED


def certain(task: Any, row: Row, base: Base) -> dict[str, Any]:
    """Return the likelihood of a model that knows every token of a row."""
    [examples] = task.encode([row], base)
    tokens = sum(label != IGNORED for example in examples for label in example["labels"])
    return {"nll": 0.0, "tokens": tokens, "hits": tokens}

"""docs/coverage.md: which architectures were trained for which task, and why others were not."""

from __future__ import annotations

from collections import Counter
from typing import Any

STATES = ("passed", "refused", "failed", "not built")


def render(lines: list[dict[str, Any]]) -> str:
    """Return the page as Markdown."""
    return "\n".join(map(str, lines))


def counts(lines: list[dict[str, Any]]) -> Counter[str]:
    """Return how many trials ended in each state."""
    return Counter(line["state"] for line in lines)

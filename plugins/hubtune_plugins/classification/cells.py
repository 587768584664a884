"""Cells of text that hold a list: JSON, Python literals, and arrays as NumPy prints them."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

LONGEST = 10_000
"""Characters of a cell that is read as a list; a longer one is a text."""
SCALARS = (str, int, float, bool)
BRACKETS = {"[": "]", "(": ")", "{": "}"}
QUOTED = r"'[^'\\]*'|\"[^\"\\]*\""
NUMBER = r"[-+]?\d+\.?\d*"
PRINTED_ARRAY = re.compile(rf"\[\s*(?:{QUOTED}|{NUMBER})(?:\s+(?:{QUOTED}|{NUMBER}))*\s*\]")
"""As NumPy prints an array, without commas. Python would join its strings to one."""


def looks_like_list(value: Any) -> bool:
    """Tell if a value is a text in brackets."""
    text = value.strip() if isinstance(value, str) else ""
    return len(text) > 1 and BRACKETS.get(text[0]) == text[-1]


def read_list(value: Any) -> list[Any] | None:
    """Return the names and numbers that a cell lists; None for a cell that is no such list.

    A list may stand in the cell as it is, or as text: `["a", "b"]`, `['a', 'b']`, `[1, 0, 1]`, `[1. 0. 1.]`, `set()`.
    """
    if isinstance(value, list | tuple):
        return list(value)
    if not isinstance(value, str):
        return None
    text = value.strip()
    if text == "set()":
        return []
    if not looks_like_list(text) or len(text) > LONGEST:
        return None
    if PRINTED_ARRAY.fullmatch(text):
        return [ast.literal_eval(item) for item in re.findall(rf"{QUOTED}|{NUMBER}", text)]
    found = parsed(text)
    if isinstance(found, set | frozenset):
        found = sorted(found, key=str)
    if not isinstance(found, list | tuple) or not all(isinstance(item, SCALARS) for item in found):
        return None
    return list(found)


def parsed(text: str) -> Any:
    """Return what a text says as JSON, or as a Python literal; None where it is neither."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return None

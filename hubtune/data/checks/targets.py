"""Targets as they are in the data: splits without labels, and lists of class labels that are vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hubtune.data.row_batches import column_values


def has_no_labels(rows: Any, train: Any, targets: Sequence[str]) -> bool:
    """Tell if a split lacks a target column, or if one is empty in all rows.

    -1 means no label, as in the test splits of GLUE, unless training rows have it.
    """
    for name in targets:
        if name not in rows.column_names:
            return True
        values = column_values(rows, name)
        if all(map(is_no_label, values)) and not any(
                map(is_minus_one, column_values(train, name))):
            return True
    return False


def is_minus_one(value: Any) -> bool:
    """Tell if a label is -1, as a number or a text."""
    return str(value) in ("-1", "-1.0")


def is_no_label(value: Any) -> bool:
    """Tell if a target is empty, or -1."""
    if isinstance(value, list):
        return all(map(is_no_label, value))
    if isinstance(value, str):
        return not value.strip() or is_minus_one(value)
    return value is None or value != value or is_minus_one(value)


def position_names(rows: Any, name: str) -> list[str]:
    """Return the class names of a column whose lists are 0/1 vectors, one position for each class.

    Lists of class labels are ids otherwise.
    """
    feature = rows.features[name]
    names = list(getattr(getattr(feature, "feature", None), "names", None) or ())
    if len(names) < 2:
        return []
    repeats = False
    for value in column_values(with_numbers(rows, name), name):
        if value is None or len(value) != len(names) or not set(value) <= {0, 1}:
            return []
        repeats = repeats or len(set(value)) < len(value)
    return names if repeats else []  # ids are different in a row


def with_numbers(rows: Any, name: str) -> Any:
    """Read lists of class labels as numbers."""
    from datasets import List, Value

    return rows.cast_column(name, List(Value("int64")))

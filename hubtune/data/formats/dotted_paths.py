"""Dotted paths: values inside of objects, such as `content.body`, as columns of their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from hubtune.data.row_batches import column_values


def find(rows: Any, path: str) -> Any | None:
    """Return the feature that a dotted path leads to; None where it leads to nothing.

    A list on the way gives the list of the values in its objects.
    """
    first, *keys = split(rows.column_names, path)
    feature = rows.features.get(first)
    depth = 0
    for key in keys:
        while hasattr(feature, "feature") and not isinstance(feature, dict):
            feature, depth = feature.feature, depth + 1
        if type(feature).__name__ == "Json":
            return feature  # its keys differ by row
        if not isinstance(feature, dict) or key not in feature:
            return None
        feature = feature[key]
    return feature


def split(names: Iterable[str], path: str) -> list[str]:
    """Split a path at its dots, but for those in the name of its column."""
    column = max((name for name in names if path == name or path.startswith(f"{name}.")),
                 key=len, default=None)
    if column is None:
        return [path]
    return [column, *([] if path == column else path[len(column) + 1:].split("."))]


def below(rows: Any) -> list[str]:
    """Return the dotted paths to all values inside of objects."""
    found: list[str] = []
    for name, feature in (rows.features or {}).items():
        found += (f"{name}.{path}" for path in inner_paths(feature))
    return found


def inner_paths(feature: Any) -> Iterator[str]:
    """Yield the dotted paths below a feature."""
    while hasattr(feature, "feature") and not isinstance(feature, dict):
        feature = feature.feature
    for key, inner in feature.items() if isinstance(feature, dict) else ():
        deeper = [f"{key}.{path}" for path in inner_paths(inner)]
        yield from deeper or [key]


def value_at(row: Any, path: str) -> Any:
    """Return the value of a row at a dotted path; None where an object on the way is missing."""
    first, *keys = split(row, path)
    return inner_value(row[first], keys)


def inner_value(value: Any, keys: list[str]) -> Any:
    """Return the value inside of a value; of a list of objects, the list of theirs."""
    for place, key in enumerate(keys):
        if isinstance(value, list):
            return [inner_value(item, keys[place:]) for item in value]
        value = value.get(key) if isinstance(value, dict) else None
    return value


def add_columns(rows: Any, names: Iterable[str]) -> Any:
    """Add a column for each dotted path among some names; values keep their types."""
    for path in dict.fromkeys(names):
        if path in rows.column_names or find(rows, path) is None:
            continue
        first, *keys = split(rows.column_names, path)
        flat = rows.select_columns([first]).flatten()
        if path in flat.column_names:
            column = flat.select_columns([path])
            from datasets import concatenate_datasets

            rows = concatenate_datasets([rows, column], axis=1)
            continue
        values = column_values(rows, first, make=lambda value, keys=keys: inner_value(value, keys))
        rows = rows.add_column(path, list(values))
    return rows

"""Columns: map a task's roles to the columns of the data, and check their values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hubtune.contract import Column, Rows, Task
from hubtune.data.files.lines import RowLines
from hubtune.data.formats import dotted_paths
from hubtune.data.labels import row_numbers
from hubtune.data.row_batches import BatchedRows, column_values
from hubtune.data.streaming import Stream
from hubtune.errors import DataError, RecipeError, did_you_mean, listing


def find_columns(
    rows: Any, columns: Sequence[Column], chosen: Mapping[str, str], training: bool = True
) -> dict[str, str]:
    """Map roles to columns: as chosen, else by name, else the only column of a fitting type.

    Raises:
        DataError: unknown role, missing column, or a role without a column.
    """
    mapping = chosen_columns(rows, [column.role for column in columns], chosen)
    by_name = {normalized_name(name): name for name in reversed(rows.column_names)}
    for column in columns:
        if column.role not in mapping:
            free = (by_name[name] for name in column.names if name in by_name)
            found = next((name for name in free if name not in mapping.values()), None)
            if found:
                mapping[column.role] = found
    for column in columns:
        needed = column.needed == "always" or (column.needed == "train" and training)
        if needed and column.role not in mapping:
            mapping[column.role] = only_column_of_kind(rows, column, mapping)
    if columns and not mapping:
        known = [name for column in columns for name in column.names]
        raise DataError(
            f"no column that the task reads. Columns: {listing(rows.column_names, 30)}; recognized "
            f"names: {listing(known, 40)}.",
            hint=f"Choose one with: --set data.{columns[0].role}=COLUMN")
    return mapping


def chosen_columns(rows: Any, roles: Sequence[str], chosen: Mapping[str, str]) -> dict[str, str]:
    """Return the columns that the user chose, by role; refuse unknown roles and missing columns."""
    names = list(rows.column_names)
    for role, name in chosen.items():
        if role not in roles:
            near = did_you_mean(role, roles)
            raise DataError(f"no role '{role}' in this task.{near} Roles: {listing(roles)}.")
        if name not in names and dotted_paths.find(rows, name) is None:
            raise DataError(
                f"there is no column '{name}' (for {role}).{did_you_mean(name, names)} "
                f"Columns: {listing([*names, *dotted_paths.below(rows)], 30)}.",
                hint=f"Choose one with: --set data.{role}=COLUMN",
            )
    return dict(chosen)


def only_column_of_kind(rows: Any, column: Column, mapping: Mapping[str, str]) -> str:
    """Return the only column of the right type that has no role yet; refuse none and several."""
    names: list[str] = list(rows.column_names)
    left = [name for name in names
            if name not in mapping.values() and looks_like(rows, name, column.kind)]
    if len(left) != 1:
        raise DataError(
            f"no column for the {column.role}. "
            f"Columns: {listing([*names, *dotted_paths.below(rows)], 30)}; "
            f"recognized names: {listing(column.names, 30)}.",
            hint=f"Choose it with: --set data.{column.role}=COLUMN",
        )
    return left[0]


def normalized_name(name: str) -> str:
    """Normalize a column name for comparison: lower case, underscores."""
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def looks_like(rows: Any, name: str, kind: str) -> bool:
    """Tell whether the type of a column fits a kind, such as a class label for `label`."""
    from datasets import Audio, ClassLabel, Image

    feature = rows.features[name]
    if kind in ("label", "image", "audio"):
        return isinstance(feature, {"label": ClassLabel, "image": Image, "audio": Audio}[kind])
    inner = getattr(feature, "feature", None)  # of a list
    if kind in ("words", "texts"):
        return getattr(inner, "dtype", None) in ("string", "large_string")
    if kind == "any" or getattr(feature, "dtype", None) not in ("string", "large_string"):
        return False
    values = [value or "" for value in rows[:100][name]]
    return sum(len(value.split()) for value in values) >= 2 * len(values)


def rename_to_roles(rows: Any, mapping: Mapping[str, str], split: str) -> Any:
    """Select the mapped columns and rename them to their roles; class labels become their names.

    Raises:
        DataError: a split lacks a mapped column.
    """
    rows = dotted_paths.add_columns(rows, mapping.values())
    missing = [name for name in mapping.values() if name not in rows.column_names]
    if missing:
        raise DataError(
            f"the {split} split has no column {listing(missing)}; "
            f"its columns: {listing(rows.column_names, 30)}."
        )
    rows = rows.select_columns(list(mapping.values())).rename_columns(
        # Via temporary names, since a role may be the name of another column.
        {name: f"role:{role}" for role, name in mapping.items()}
    ).rename_columns({f"role:{role}": role for role in mapping})
    for role in mapping:
        feature = rows.features[role]
        if holds_labels(feature):
            values = [label_names(feature, value) for value in column_values(rows, role)]
            rows = rows.remove_columns(role).add_column(role, values)
    return rows


def rename_stream(rows: Stream, mapping: Mapping[str, str], kept: Sequence[str]) -> Stream:
    """Rename the columns of a stream as `rename_to_roles` does. kept: roles kept in memory."""
    head = dotted_paths.add_columns(rows.head, mapping.values())
    features = {role: head.features[name] for role, name in mapping.items()}

    def rename(row: Any) -> dict[str, Any]:
        values = {role: (features[role], dotted_paths.value_at(row, name))
                  for role, name in mapping.items()}
        return {role: label_names(feature, value) if holds_labels(feature) else value
                for role, (feature, value) in values.items()}

    return rows.map(rename_to_roles(rows.head, mapping, "train"), rename, kept)


def refuse_objects(
    rows: Any, columns: Sequence[Column], mapping: Mapping[str, str], split: str, raw: Any,
    lines: RowLines | None = None,
) -> None:
    """Refuse objects where a task takes a text or a label, with the paths that lead into them.

    Args:
        rows: of a split, under their roles.
        raw: the same rows, under the data's own names.
        lines: of these rows.
    """
    from datasets import Value

    for column in columns:
        if column.kind not in ("text", "label") or column.role not in rows.column_names:
            continue
        feature = rows.features[column.role]
        if isinstance(feature, Value):
            continue
        wrong = [number for number, value in enumerate(column_values(rows, column.role))
                 if isinstance(value, dict) or (
                     column.kind == "text" and isinstance(value, list)
                     and any(isinstance(item, dict) for item in value))]
        if wrong:
            name = mapping[column.role]
            at = f" ({lines.describe(wrong[:8])})" if lines and lines.count else ""
            inner = [path for path in dotted_paths.below(raw) if path.startswith(f"{name}.")]
            raise DataError(
                f"{len(wrong)} of {len(rows)} rows have an object as {column.role} (column "
                f"'{name}'): {row_numbers(wrong)} of {split}{at}.",
                hint=f"Choose a value in it: --set data.{column.role}=PATH\n"
                f"Paths: {listing(inner, 20) or 'none'}")


def unused_columns(rows: Any, mapping: Mapping[str, str]) -> list[str]:
    """Return the columns that no role uses; of an object that is used in part, its other values."""
    found = []
    for name in rows.column_names:
        if name in mapping.values():
            continue
        inside = [path for path in dotted_paths.below(rows) if path.startswith(f"{name}.")]
        used = [path for path in mapping.values() if path.startswith(f"{name}.")]
        found += [path for path in inside if path not in used and not any(
            one.startswith(f"{path}.") or path.startswith(f"{one}.") for one in used)
        ] if used else [name]
    return found


def holds_labels(feature: Any) -> bool:
    """Tell whether a feature holds class labels at any depth."""
    from datasets import ClassLabel

    inner = feature.values() if isinstance(feature, dict) else [getattr(feature, "feature", None)]
    return isinstance(feature, ClassLabel) or any(
        part is not None and holds_labels(part) for part in inner)


def label_names(feature: Any, value: Any) -> Any:
    """Replace class labels by their names, also in lists and dicts; -1 means no label."""
    if isinstance(value, list):
        return [label_names(getattr(feature, "feature", feature), item) for item in value]
    if isinstance(value, dict):  # a feature of dicts, or a list of dicts kept as a dict of lists
        parts = getattr(feature, "feature", feature)
        return {name: label_names(parts[name], item) for name, item in value.items()}
    if not hasattr(feature, "int2str"):
        return value
    return None if value is None or value < 0 else feature.int2str(value)


def is_gap(value: Any, column: Column) -> bool:
    """Tell if a value is missing: None, NaN, a blank text, or an empty list other than labels."""
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, list):
        return not value and column.kind != "label"
    return value is None or (isinstance(value, float) and math.isnan(value))


def refuse_gaps(rows: Rows, columns: Sequence[Column], split: str, training: bool) -> None:
    """Refuse empty texts and missing labels, with their row numbers."""
    looked = [column for column in columns
              if column.role in rows.column_names and not column.gaps  # type: ignore[attr-defined]
              and (column.needed == "always" or training)]
    gaps: dict[str, list[int]] = {column.role: [] for column in looked}
    for number, values in enumerate(column_values(rows, *gaps, make=lambda *values: values)):
        for column, value in zip(looked, values, strict=True):
            if is_gap(value, column):
                gaps[column.role].append(number)
    for column in looked:
        if found := gaps[column.role]:
            labelled = column.kind == "label"
            what = f"a missing {column.role}" if labelled else f"an empty {column.role}"
            raise DataError(
                f"{len(found)} of {len(rows)} rows have {what}: {row_numbers(found)} of {split}.",
                hint="Fill them in or remove these rows, and run the same command again.",
            )


def add_task_columns(rows: Any, task: Task[Any]) -> Any:
    """Add the columns that a task computes from all rows, replacing those of the same role."""
    if not task.added_columns:
        return rows
    if isinstance(rows, Stream):
        raise RecipeError(
            f"'{task.name}' computes {listing(task.added_columns)} from all rows, "
            "so its data cannot be streamed.", hint="Remove data.stream from the recipe.")
    for role, values in task.add_columns(BatchedRows(rows)).items():
        if role in rows.column_names:
            rows = rows.remove_columns(role)
        rows = rows.add_column(role, list(values))
    return rows

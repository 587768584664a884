"""Respell: labels of a column written in another way, in training rows and in rows to be evaluated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hubtune.contract import Column
from hubtune.data.columns import is_gap
from hubtune.data.labels import row_numbers, spelled_as
from hubtune.data.row_batches import column_values


def label_role(rows: Any, columns: Sequence[Column]) -> str | None:
    """Return the role of the labels, if the rows have one column of labels that are texts."""
    roles = [column.role for column in columns
             if column.kind == "label" and column.role in rows.column_names]
    return roles[0] if len(roles) == 1 else None


def texts_in(value: Any) -> list[str]:
    """Return the labels of a cell that are texts."""
    values = value if isinstance(value, list) else [value]
    return [one for one in values if isinstance(one, str)]


def replaced(rows: Any, role: str, changes: Mapping[str, str]) -> tuple[Any, list[int]]:
    """Replace labels of a column; return the rows, and the positions of those that changed."""
    def change(value: Any) -> Any:
        if isinstance(value, list):
            return [change(one) for one in value]
        return changes.get(value, value) if isinstance(value, str) else value

    values, changed = [], []
    for index, value in enumerate(column_values(rows, role)):
        new = change(value)
        values.append(new)
        if new != value:
            changed.append(index)
    if not changed:
        return rows, []
    return rows.remove_columns(role).add_column(role, values), changed


def spell_as_trained(rows: Any, role: str, known: Sequence[str]) -> tuple[Any, int]:
    """Spell the labels of rows to be evaluated as those that a model was trained with.

    Returns:
        The rows, and the number of those that changed.
    """
    found = dict.fromkeys(label for value in column_values(rows, role) for label in texts_in(value))
    changes = {label: spelled_as([label], known).get(label, label) for label in found}
    rows, changed = replaced(rows, role, changes)
    return rows, len(changed)


def clean_for_evaluation(
    rows: Any, columns: Sequence[Column], operations: Sequence[str], known: Sequence[str],
    say: Callable[[str], None],
) -> Any:
    """Spell labels as in training, and leave out rows without one, where `operations` say so."""
    role = label_role(rows, columns)
    if role is None:
        return rows
    if "drop-unlabelled" in operations:
        column = next(column for column in columns if column.role == role)
        kept = [index for index, value in enumerate(column_values(rows, role))
                if not is_gap(value, column)]
        if len(kept) < len(rows):
            gone = sorted(set(range(len(rows))) - set(kept))
            say(f"data.clean: drop-unlabelled: {row_numbers(gone)} without a label left out.")
            rows = rows.select(kept)
    if known and ("strip-labels" in operations or "merge-label-case" in operations):
        rows, changed = spell_as_trained(rows, role, known)
        if changed:
            say(f"data.clean: the labels of {changed:,} rows are spelled as in training.")
    return rows

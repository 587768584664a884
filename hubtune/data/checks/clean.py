"""Clean: the operations of `data.clean`, each of which says what it did."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubtune.contract import Column
from hubtune.data.checks.findings import Rows
from hubtune.data.checks.respell import label_role, replaced, texts_in
from hubtune.data.checks.scan import Scan, groups_of, scan
from hubtune.data.data_splits import DataSplits
from hubtune.data.labels import by_spelling, row_numbers
from hubtune.data.row_batches import RowOrigin, column_values
from hubtune.data.streaming import Stream
from hubtune.errors import RecipeError, listing
from hubtune.recipe import CLEAN

Lines = Mapping[str, Callable[[Sequence[int]], list[int]]]
Done = list[dict[str, Any]]


def clean(
    data: DataSplits, columns: Sequence[Column], operations: Sequence[str], lines: Lines
) -> tuple[DataSplits, Done, dict[str, Scan]]:
    """Apply operations to all splits, in the order of `recipe.CLEAN`.

    Args:
        columns: of the task.
        lines: finds the lines of the file, by split, for what is reported.

    Returns:
        The data with the numbers of the rows that are left; what was done: operation, split,
        number of rows, and a sentence; and a scan of each split that is left.
    """
    done: Done = []
    if operations and any(isinstance(rows, Stream) for rows in data.splits.values()):
        raise RecipeError("data.clean reads all rows, so the data cannot be streamed.",
                          hint="Leave data.stream or data.clean out.")
    for name in [name for name in CLEAN if name not in DROPS and name in operations]:
        data = respell(data, columns, name, lines, done)
    scans = {split: scan(rows, columns) for split, rows in data.splits.items()}
    for name in [name for name in CLEAN if name in DROPS and name in operations]:
        for split, dropped in DROPS[name](data, columns, scans).items():
            if dropped:
                data = drop(data, split, dropped, name, lines, done)
                scans[split] = scan(data.splits[split], columns)
    return data, done, scans


def origin_of(data: DataSplits, split: str, lines: Lines) -> RowOrigin:
    """Return the place in the data of the rows of a split."""
    found = lines.get(split)
    numbers = data.row_numbers.get(split)
    return RowOrigin(numbers, found) if found else RowOrigin(numbers)


# ------------------------------------------------------------------------------------- spelling


def respell(
    data: DataSplits, columns: Sequence[Column], name: str, lines: Lines, done: Done
) -> DataSplits:
    """Spell the labels of all splits without blanks at their ends, or each in one way."""
    role = label_role(data.splits["train"], columns)
    if role is None:
        return data
    counts: Counter[str] = Counter()
    for rows in data.splits.values():
        if role in rows.column_names:
            for value in column_values(rows, role):
                counts.update(texts_in(value))
    if name == "strip-labels":
        changes = {label: label.strip() for label in counts if label != label.strip()}
    else:
        changes = {
            label: max(labels, key=lambda one: (counts[one], one))
            for labels in by_spelling(counts).values() if len(labels) > 1 for label in labels}
    splits = dict(data.splits)
    for split, rows in data.splits.items():
        if role in rows.column_names:
            splits[split], changed = replaced(rows, role, changes)
            if changed:
                text = "their labels without blanks at the ends" if name == "strip-labels" else (
                    "labels spelled as the more frequent "
                    + listing(sorted({f"'{new}'" for old, new in changes.items() if old != new})))
                report(done, name, split, changed, f"{count_rows(len(changed))} got {text}",
                       origin_of(data, split, lines))
    return dataclasses.replace(data, splits=splits)


# ---------------------------------------------------------------------------------------- drops


def empty(
    data: DataSplits, columns: Sequence[Column], scans: Mapping[str, Scan]
) -> dict[str, list[int]]:
    """Return the rows without an input."""
    return with_gap(columns, scans, target=False)


def unlabelled(
    data: DataSplits, columns: Sequence[Column], scans: Mapping[str, Scan]
) -> dict[str, list[int]]:
    """Return the rows without a label."""
    return with_gap(columns, scans, target=True)


def with_gap(
    columns: Sequence[Column], scans: Mapping[str, Scan], target: bool
) -> dict[str, list[int]]:
    """Return the rows in which a column is missing that is a target, or is none."""
    roles = {column.role for column in columns if column.target == target}
    return {split: sorted({index for role in roles for index in found.gaps.get(role, ())})
            for split, found in scans.items()}


def duplicates(
    data: DataSplits, columns: Sequence[Column], scans: Mapping[str, Scan]
) -> dict[str, list[int]]:
    """Return the training rows whose inputs and targets an earlier row has, too."""
    return {"train": repeated(scans["train"])}


def repeated(found: Scan) -> list[int]:
    """Return the rows whose inputs and targets an earlier row has, too."""
    first, _ = groups_of(found.inputs * 31 + found.labels)
    return [int(index) for index in np.flatnonzero(first != np.arange(found.rows))]


def conflicts(
    data: DataSplits, columns: Sequence[Column], scans: Mapping[str, Scan]
) -> dict[str, list[int]]:
    """Return the training rows whose inputs have another label in another row."""
    return {"train": conflicting(scans["train"])}


def conflicting(found: Scan) -> list[int]:
    """Return the rows whose inputs have other targets in another row."""
    first, sizes = groups_of(found.inputs)
    differs = found.labels != found.labels[first] if found.rows else np.zeros(0, bool)
    groups = np.unique(first[differs])
    return [int(index) for index in np.flatnonzero(np.isin(first, groups) & (sizes > 1))]


def rare(
    data: DataSplits, columns: Sequence[Column], scans: Mapping[str, Scan]
) -> dict[str, list[int]]:
    """Return the rows with a label that one training row has alone."""
    role = label_role(data.splits["train"], columns)
    if role is None:
        return {}
    scalars = [value for value in column_values(data.splits["train"], role)
               if isinstance(value, str | int)]
    few = {value for value, count in Counter(scalars).items() if count == 1}
    return {split: [index for index, value in enumerate(column_values(rows, role))
                    if not isinstance(value, list) and value in few]
            for split, rows in data.splits.items() if role in rows.column_names}


def leaked(
    data: DataSplits, columns: Sequence[Column], scans: Mapping[str, Scan]
) -> dict[str, list[int]]:
    """Return the training rows whose inputs are also in another split."""
    others = [found.inputs for split, found in scans.items() if split != "train"]
    if not others:
        return {}
    return {"train": np.flatnonzero(np.isin(scans["train"].inputs, np.concatenate(others))).tolist()}


DROPS: Mapping[str, Callable[..., dict[str, list[int]]]] = {
    "drop-empty": empty, "drop-unlabelled": unlabelled, "drop-duplicates": duplicates,
    "drop-conflicts": conflicts, "drop-rare-labels": rare, "drop-leaked": leaked,
}
REASONS = {
    "drop-empty": "without an input", "drop-unlabelled": "without a label",
    "drop-duplicates": "that repeat an earlier row", "drop-conflicts": "whose input has other labels in other rows",
    "drop-rare-labels": "with a label that only one training row has",
    "drop-leaked": "whose input is also in another split",
}


def drop(
    data: DataSplits, split: str, dropped: Sequence[int], name: str, lines: Lines, done: Done
) -> DataSplits:
    """Drop rows of a split, given by their positions."""
    report(done, name, split, dropped, f"{count_rows(len(dropped))} {REASONS[name]} dropped",
           origin_of(data, split, lines))
    return without(data, split, dropped)


def without(data: DataSplits, split: str, dropped: Sequence[int]) -> DataSplits:
    """Return the data without rows of a split, with the numbers of those that are left."""
    rows = data.splits[split]
    kept = np.ones(len(rows), bool)
    kept[np.asarray(dropped, np.int64)] = False
    left: NDArray[np.int64] = np.flatnonzero(kept)
    before = data.row_numbers.get(split)
    numbers = {**data.row_numbers, split: left if before is None else before[left]}
    return dataclasses.replace(
        data, splits={**data.splits, split: rows.select(left)}, row_numbers=numbers)


def count_rows(count: int) -> str:
    """Return `1 row` or `3 rows`."""
    return f"{count:,} row{'' if count == 1 else 's'}"


def report(
    done: Done, name: str, split: str, indices: Sequence[int], what: str, origin: RowOrigin
) -> None:
    """Add a sentence on what an operation did."""
    shown = row_numbers(indices, Rows(origin))
    done.append({"operation": name, "split": split, "rows": len(indices),
                 "text": f"{name}: {what} ({shown} of {split})."})

"""Scan: one pass over the rows of a split, for gaps, blanks in labels, and hashes of inputs and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubtune.contract import Column
from hubtune.data.columns import is_gap
from hubtune.data.row_batches import column_batches

Hashes = NDArray[np.int64]
LEAKS = (("validation", "train"), ("test", "train"), ("test", "validation"))
"""Pairs of splits of which the first must not have rows of the second."""


@dataclass(frozen=True)
class Scan:
    """Results of one pass over a split.

    Attributes:
        rows: number of rows.
        gaps: rows without a value, by role.
        inputs: hash of the inputs of each row, (rows,): equal for duplicates.
        labels: hash of the targets of each row, (rows,).
        blanks: rows with a label that begins or ends with a blank.
    """

    rows: int
    gaps: Mapping[str, list[int]]
    inputs: Hashes
    labels: Hashes
    blanks: list[int] = field(default_factory=list)


def scan(rows: Any, columns: Sequence[Column]) -> Scan:
    """Go through the rows of a split once. columns: of the task."""
    present = [column for column in columns if column.role in rows.column_names]
    looked = [column for column in present if not column.gaps]
    inputs = [column.role for column in present if not column.target]
    targets = [column.role for column in present if column.target]
    labels = [column.role for column in present if column.kind == "label"]
    gaps: dict[str, list[int]] = {column.role: [] for column in looked}
    blanks: list[int] = []
    input_hashes, label_hashes = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    number = 0
    for batch in column_batches(rows):
        for column in looked:
            gaps[column.role] += [
                number + index for index, value in enumerate(batch[column.role])
                if (not value or value.isspace() if type(value) is str else is_gap(value, column))]
        for role in labels:
            blanks += [number + index for index, value in enumerate(batch[role])
                       if type(value) is str and value != value.strip()]
        input_hashes.append(hash_rows(batch, inputs))
        label_hashes.append(hash_rows(batch, targets))
        number += len(next(iter(batch.values())))
    hashes = np.concatenate(input_hashes)
    for gap in {gap for found in gaps.values() for gap in found}:
        hashes[gap] = hash((gap, id(gaps)))  # rows without a value are no copies of each other
    return Scan(number, gaps, hashes, np.concatenate(label_hashes), blanks)


def hash_rows(columns: Mapping[str, Sequence[Any]], roles: Sequence[str]) -> Hashes:
    """Hash some values of each row, given by column. Blanks around texts do not count."""
    count = len(next(iter(columns.values())))
    if not roles:
        return np.zeros(count, np.int64)
    texts = [list(map(hashable, columns[role])) for role in roles]
    rows = texts[0] if len(roles) == 1 else zip(*texts, strict=True)
    return np.fromiter(map(hash, rows), np.int64, count)


def hashable(value: Any) -> str:
    """Return a text that equal values share: hash(-1) is hash(-2), so numbers are no keys."""
    return value.strip() if type(value) is str else repr(value)


def groups_of(hashes: Hashes) -> tuple[Hashes, Hashes]:
    """Return the first row with the same hash for each row, (rows,), and the size of its group."""
    _, first, inverse, counts = np.unique(
        hashes, return_index=True, return_inverse=True, return_counts=True)
    return first[inverse].astype(np.int64), counts[inverse].astype(np.int64)

"""The validation split: held out from train, by label, with copies of a row on one side."""

from __future__ import annotations

import random
from array import array
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubtune.data.checks.scan import Hashes, groups_of
from hubtune.data.row_batches import column_values
from hubtune.data.streaming import Stream, to_dataset
from hubtune.errors import DataError

MOST_OF_STREAM = 5_000
"""Maximum number of rows held out from a stream, since they are kept in memory."""


def hold_out_validation(
    rows: Any, share: float | str, seed: int, label: str | None, inputs: Hashes | None = None
) -> tuple[Any, Any, NDArray[np.int64] | None, NDArray[np.int64] | None]:
    """Split rows into train and validation, stratified by labels with at least two rows.

    Rows with the same inputs go to one side, and count by the label of the first of them. Not the
    stratified split of `datasets`, which refuses labels that are rarer than the share.

    Returns:
        Train rows, validation rows, and the numbers of both.
    """
    if isinstance(share, str) or not 0 < share < 1:
        raise DataError(
            f"data.validation must be a share between 0 and 1, or a data source; got {share!r}.")
    if isinstance(rows, Stream):
        wanted = max(1, min(MOST_OF_STREAM, round(share * len(rows))))
        return rows.row_range(wanted, len(rows)), to_dataset(rows, wanted), None, None
    if len(rows) < 4:
        raise DataError(
            f"{len(rows)} rows are too few for training and validation; at least 4 are needed.",
            hint="Add rows.")
    groups = rows_by_label(rows, label)
    first, sizes = np.arange(len(rows)), np.ones(len(rows), np.int64)
    held = array("q")
    if inputs is not None and len(np.unique(inputs)) < len(rows):
        first, sizes = groups_of(inputs)
        alone = {value: array("q", (index for index in members if first[index] == index))
                 for value, members in groups.items()}
        held = hold_out_groups(alone, sizes.tolist(), share, seed)
    if not held:  # no copies, or too many to keep them together
        first = np.arange(len(rows))
        held = hold_out_groups(groups, [1] * len(rows), share, seed)
    is_held = np.isin(first, np.asarray(held))
    train, validation = np.flatnonzero(~is_held), np.flatnonzero(is_held)
    return rows.select(train), rows.select(validation), train, validation


def rows_by_label(rows: Any, label: str | None) -> dict[Any, array[int]]:
    """Return the row numbers of each label; of all rows together where there is none to stratify by.

    Fractions are no labels; whole numbers with a decimal point are, unless there are fractions.
    """
    groups: dict[Any, array[int]] = defaultdict(lambda: array("q"))
    fractions, most = False, len(rows) // 4
    for index, value in enumerate(column_values(rows, label)) if label else ():
        if type(value) is not str:
            fractions = fractions or (isinstance(value, float) and not value.is_integer())
            value = value if isinstance(value, int | float) else None
        groups[value].append(index)
        if len(groups) > most:  # continuous or nearly unique labels
            break
    if not label or fractions or len(groups) > len(rows) // 4:
        return {None: array("q", range(len(rows)))}
    return groups


def hold_out_groups(
    groups: Mapping[Any, array[int]], sizes: Sequence[int], share: float, seed: int
) -> array[int]:
    """Choose groups of rows for validation.

    Args:
        groups: the first row of each group of copies, by label.
        sizes: the size of the group of each row.

    Returns:
        First rows of the chosen groups: none if every label has a single group.
    """
    draw = random.Random(f"validation/{seed}")
    wanted = max(1, round(share * sum(sizes[row] for members in groups.values() for row in members)))
    held, left, rows_held = array("q"), array("q"), 0
    for value in sorted(groups, key=str):
        members = groups[value]
        if not members:  # its rows are copies of rows with other labels
            continue
        draw.shuffle(members)
        whole, taken = sum(sizes[row] for row in members), 0
        most = min(int(share * whole), whole - 1)
        for row in members[:-1]:  # one group of each label always stays in train
            if taken + sizes[row] <= most:
                held.append(row)
                taken += sizes[row]
            else:
                left.append(row)
        rows_held += taken
    draw.shuffle(left)
    rest = array("q")
    for row in left:
        if rows_held + sizes[row] <= wanted:
            held.append(row)
            rows_held += sizes[row]
        else:
            rest.append(row)
    if rest:  # large groups of copies: one more where that is nearer to the share
        smallest = min(rest, key=lambda row: sizes[row])
        if not held or sizes[smallest] < 2 * (wanted - rows_held):
            held.append(smallest)
    return held

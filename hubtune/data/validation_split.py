"""The validation split: a share or a fold, held out from train by label, with copies of a row on one side."""

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
from hubtune.errors import DataError, RecipeError
from hubtune.recipe import DataConfig

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
            f"data.validation must be a share between 0 and 1, or a data source; got {share!r}.",
            hint="Validation rows choose the weights. For example: --set data.validation=0.1; for few rows: --set data.folds=5")
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


def check_folds(part: DataConfig, name: str, is_given: bool) -> None:
    """Refuse a number of folds that is none, and folds where train is not what validation rows come from.

    name: of the data. is_given: it has a validation split.
    """
    folds, fold = part.folds, part.fold
    if folds is not None and folds < 2:
        raise RecipeError(f"data.folds must be at least 2, not {folds}.", hint="For example: --set data.folds=5")
    if fold is not None and (folds is None or not 0 <= fold < folds):
        known = "data.folds is not set" if folds is None else f"folds are 0 to {folds - 1}"
        raise RecipeError(f"data.fold={fold}, and {known}.", hint="For example: --set data.folds=5 --set data.fold=0")
    if folds is not None and part.stream:
        raise RecipeError("data.folds reads train several times, and data.stream once.", hint="Leave one of the two out.")
    if folds is not None and is_given:
        raise DataError("data.folds holds out parts of train in turn, and there is a validation split.", where=name,
                        hint="Leave data.folds out; or leave the split out, such as --set 'data.splits=[\"train\", \"test\"]'")


def hold_out_fold(
    rows: Any, fold: int, folds: int, seed: int, label: str | None, inputs: Hashes | None
) -> tuple[Any, Any, NDArray[np.int64], NDArray[np.int64]]:
    """Split rows into those of the other folds and those of one fold, which every row is in once.

    Returns:
        Train rows, validation rows, and the numbers of both.

    Raises:
        DataError: fewer rows that differ than folds.
    """
    of_row = assign(rows, folds, seed, label, inputs)
    kept, held = np.flatnonzero(of_row != fold), np.flatnonzero(of_row == fold)
    return rows.select(kept), rows.select(held), kept, held


def assign(rows: Any, folds: int, seed: int, label: str | None, inputs: Hashes | None) -> NDArray[np.int64]:
    """Return the fold of each row: rows with the same inputs are in one, and each label is spread over all.

    Groups of copies count by the label of their first row, go in an order that the seed draws, the largest of a label first,
    and to the fold that has the fewest rows of this label, and of all.
    """
    first, sizes = np.arange(len(rows)), np.ones(len(rows), np.int64)
    if inputs is not None and len(np.unique(inputs)) < len(rows):
        first, sizes = groups_of(inputs)
    if (different := int((first == np.arange(len(rows))).sum())) < folds:
        raise DataError(f"train has {different} rows that differ, too few for {folds} folds.",
                        hint="Set fewer: --set data.folds=2, or add rows.")
    draw = random.Random(f"folds/{seed}")
    chosen, filled = np.zeros(len(rows), np.int64), [0] * folds
    groups = rows_by_label(rows, label)
    for value in sorted(groups, key=str):
        members = [row for row in groups[value] if first[row] == row]
        draw.shuffle(members)
        of_label = [0] * folds
        for row in sorted(members, key=lambda row: -sizes[row]):
            place = min(range(folds), key=lambda fold: (of_label[fold], filled[fold], fold))
            chosen[row] = place
            of_label[place] += int(sizes[row])
            filled[place] += int(sizes[row])
    found: NDArray[np.int64] = chosen[first]
    return found

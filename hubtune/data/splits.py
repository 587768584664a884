"""Splits: load rows by role, hold out validation rows, and count duplicates between splits."""

from __future__ import annotations

import dataclasses
import random
from array import array
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubtune.contract import Column, Rows
from hubtune.data import sources
from hubtune.data.columns import find_columns, refuse_gaps, rename_stream, rename_to_roles
from hubtune.data.formats.paths import SPLITS
from hubtune.data.row_batches import column_values
from hubtune.data.sources import DataSplits
from hubtune.data.streaming import Stream, to_dataset
from hubtune.errors import DataError, listing
from hubtune.recipe import DataConfig

Warn = Callable[[str], None]


def load_splits(part: DataConfig, columns: Sequence[Column], source: Any = None) -> DataSplits:
    """Load the splits of a source under the task's roles, in their order in the data.

    Args:
        source: overrides `part.source`.

    Raises:
        DataError: no train split, no column for a role, or missing values.
    """
    raw = sources.load(part.source if source is None else source, part.stream)
    if "train" not in raw.splits:
        raise DataError(f"there is no train split; splits: {listing(raw.splits)}.", where=raw.name)
    train = raw.splits["train"]
    head = train.head if isinstance(train, Stream) else train
    mapping = find_columns(head, columns, part.columns)
    labels = [c.role for c in columns if c.kind == "label" and c.role in mapping]
    splits = {
        split: rename_stream(rows, mapping, labels) if isinstance(rows, Stream)
        else rename_to_roles(rows, mapping, split)
        for split, rows in raw.splits.items() if split in SPLITS}
    if isinstance(part.validation, str):
        other = sources.load(part.validation)
        rows = next(iter(other.splits.values()))
        splits["validation"] = rename_to_roles(rows, mapping, "validation")
        raw.fingerprint = f"{raw.fingerprint}+{other.fingerprint}"
    for split, rows in splits.items():
        refuse_gaps(rows, columns, split, training=True)
    return dataclasses.replace(raw, splits=splits, columns=mapping)


def training_splits(
    data: DataSplits, part: DataConfig, columns: Sequence[Column], seed: int, warn: Warn
) -> DataSplits:
    """Return train, validation and any test rows; validation is held out from train if missing."""
    splits = dict(data.splits)
    numbers: dict[str, NDArray[np.int64]] = {}
    if part.limit is not None:
        sampled = {split: sample(rows, part.limit, seed) for split, rows in splits.items()}
        splits = {split: rows for split, (rows, _) in sampled.items()}
        numbers = {split: drawn for split, (_, drawn) in sampled.items() if drawn is not None}
    checks: dict[str, Any] = {"validation": "given"}
    if "validation" not in splits:
        labels = [c.role for c in columns if c.kind == "label" and c.role in data.columns]
        label = labels[0] if labels else None
        splits["train"], splits["validation"], kept_numbers = hold_out_validation(
            splits["train"], part.validation, seed, label)
        if kept_numbers is not None:
            sampled_from = numbers.get("train")
            numbers["train"] = kept_numbers if sampled_from is None else sampled_from[kept_numbers]
        if isinstance(splits["train"], Stream):
            checks["validation"] = f"the first {len(splits['validation'])} rows of train"
        else:
            checks["validation"] = f"held out from train ({part.validation:g}, seed {seed})"
    if isinstance(splits["train"], Stream):
        checks["stream"] = (f"shuffled within a buffer of {part.buffer} consecutive rows; "
                            "duplicates within train are not counted")
    kept = {split: rows for split, rows in splits.items() if not isinstance(rows, Stream)}
    checks["duplicates"] = count_duplicates(kept, [c.role for c in columns if not c.target])
    for pair, count in checks["duplicates"].items():
        if count:
            warn(f"{count} rows of {pair.replace('/', ' also appear in ')} (leakage): "
                 "scores will be optimistic.")
    ordered = {split: splits[split] for split in SPLITS if split in splits}
    return dataclasses.replace(data, splits=ordered, checks=checks, row_numbers=numbers)


MOST_OF_STREAM = 5_000
"""Maximum number of rows held out from a stream, since they are kept in memory."""
HELD_OUT = ("test", "validation")
"""Splits that are evaluated by default, in this order, before any that the model was trained on."""


def evaluation_split(
    source: Any, split: str | None, columns: Sequence[Column], chosen: Mapping[str, str],
    needs_labels: bool,
) -> DataSplits:
    """Load the rows of one split for `evaluate` and `predict`.

    Returns:
        One split, under its name, or under the name of the data where that has no splits. A
        recorded column that the data lacks is looked up by name again.
    """
    raw = sources.load(source)
    if split is not None and split not in raw.splits:
        names = "none" if raw.unsplit else listing(raw.splits)
        raise DataError(f"there is no split '{split}'; splits: {names}.", where=raw.name,
                        hint="Leave --split out to use all rows." if raw.unsplit else None)
    held_out = (held for held in HELD_OUT if held in raw.splits)
    name = split or next(held_out, next(iter(raw.splits)))
    present = raw.splits[name].column_names
    kept = {role: column for role, column in chosen.items() if column in present}
    wanted = [column for column in columns
              if column.needed != "train" or needs_labels or column.role in kept]
    mapping = find_columns(raw.splits[name], wanted, kept, training=needs_labels)
    called = raw.name if raw.unsplit and split is None else name
    rows = rename_to_roles(raw.splits[name], mapping, called)
    refuse_gaps(rows, wanted, called, training=needs_labels)
    return dataclasses.replace(raw, splits={called: rows}, columns=mapping)


def sample(rows: Any, most: int, seed: int) -> tuple[Any, NDArray[np.int64] | None]:
    """Sample at most `most` rows, in their order; the first ones of a stream.

    Returns:
        The rows, and their numbers where a part of them was sampled.
    """
    if len(rows) <= most:
        return rows, None
    if isinstance(rows, Stream):
        return rows.row_range(0, most), None
    numbers = np.array(sorted(random.Random(f"limit/{seed}").sample(range(len(rows)), most)))
    return rows.select(numbers), numbers


def hold_out_validation(
    rows: Any, share: float | str, seed: int, label: str | None
) -> tuple[Any, Any, NDArray[np.int64] | None]:
    """Split rows into train and validation, stratified by labels with at least two rows.

    Not the stratified split of `datasets`, which refuses labels that are rarer than the share.

    Returns:
        Train rows, validation rows, and the numbers of the train rows.
    """
    if isinstance(share, str) or not 0 < share < 1:
        raise DataError(
            f"data.validation must be a share between 0 and 1, or a data source; got {share!r}.")
    if isinstance(rows, Stream):
        wanted = max(1, min(MOST_OF_STREAM, round(share * len(rows))))
        return rows.row_range(wanted, len(rows)), to_dataset(rows, wanted), None
    groups: dict[Any, array[int]] = defaultdict(lambda: array("q"))
    for index, value in enumerate(column_values(rows, label)) if label else ():
        groups[value if isinstance(value, str | int | bool) else None].append(index)
        if len(groups) > len(rows) // 4:  # continuous or nearly unique labels: nothing to stratify
            break
    if not label or len(groups) > len(rows) // 4:
        groups = {None: array("q", range(len(rows)))}
    if len(rows) < 4:
        raise DataError(
            f"{len(rows)} rows are too few for training and validation; at least 4 are needed.",
            hint="Add rows.")
    draw = random.Random(f"validation/{seed}")
    wanted = max(1, round(share * len(rows)))
    held, left = array("q"), array("q")
    for value in sorted(groups, key=str):
        members = groups[value]
        draw.shuffle(members)
        take = min(int(share * len(members)), len(members) - 1)
        held += members[:take]
        left += members[take:-1]  # one row of each label always stays in train
    draw.shuffle(left)
    held += left[: max(0, wanted - len(held))]
    chosen = np.zeros(len(rows), bool)
    chosen[np.asarray(held)] = True
    left_over = np.flatnonzero(~chosen)
    return rows.select(left_over), rows.select(np.flatnonzero(chosen)), left_over


def count_duplicates(splits: Mapping[str, Rows], roles: Sequence[str]) -> dict[str, int]:
    """Count the rows of validation and test that are also in train, and of test in validation."""
    def keys(rows: Any) -> NDArray[np.int64]:
        present = [role for role in roles if role in rows.column_names]
        found = column_values(rows, *present, make=lambda *values: hash(repr(values)))
        return np.fromiter(found if present else (), np.int64)

    hashed = {split: keys(rows) for split, rows in splits.items()}
    counts = {}
    for one, other in (("validation", "train"), ("test", "train"), ("test", "validation")):
        if one in hashed and other in hashed:
            counts[f"{one}/{other}"] = int(np.isin(hashed[one], hashed[other]).sum())
    return counts

"""Splits: load the rows of a source by role, cut validation rows, and count duplicates between splits."""

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
from hubtune.data.streaming import Stream, in_memory
from hubtune.errors import DataError, listing
from hubtune.recipe import DataConfig

Warn = Callable[[str], None]


def load_splits(part: DataConfig, columns: Sequence[Column], source: Any = None) -> DataSplits:
    """The splits as they are given, by role, without gaps: what a task inspects, under the row numbers of the data."""
    raw = sources.load(part.source if source is None else source, part.stream)
    if "train" not in raw.splits:
        raise DataError(f"there is no train split; splits: {listing(raw.splits)}.", where=raw.name)
    train = raw.splits["train"]
    mapping = find_columns(train.head if isinstance(train, Stream) else train, columns, part.columns)
    labels = [column.role for column in columns if column.kind == "label" and column.role in mapping]
    splits = {split: rename_stream(rows, mapping, labels) if isinstance(rows, Stream) else rename_to_roles(rows, mapping, split)
              for split, rows in raw.splits.items() if split in SPLITS}
    if isinstance(part.validation, str):
        other = sources.load(part.validation)
        splits["validation"] = rename_to_roles(next(iter(other.splits.values())), mapping, "validation")
        raw.fingerprint = f"{raw.fingerprint}+{other.fingerprint}"
    for split, rows in splits.items():
        refuse_gaps(rows, columns, split, training=True)
    return dataclasses.replace(raw, splits=splits, columns=mapping)


def training_splits(data: DataSplits, part: DataConfig, columns: Sequence[Column], seed: int, warn: Warn) -> DataSplits:
    """Train, validation and (where there is one) test rows; the validation split is cut from train if missing."""
    splits = dict(data.splits)
    numbers: dict[str, NDArray[np.int64]] = {}
    if part.limit is not None:
        sampled = {split: sample(rows, part.limit, seed) for split, rows in splits.items()}
        splits = {split: rows for split, (rows, _) in sampled.items()}
        numbers = {split: drawn for split, (_, drawn) in sampled.items() if drawn is not None}
    checks: dict[str, Any] = {"validation": "given"}
    if "validation" not in splits:
        labelled = next((c.role for c in columns if c.kind == "label" and c.role in data.columns), None)
        splits["train"], splits["validation"], kept_numbers = cut_validation(splits["train"], part.validation, seed, labelled)
        if kept_numbers is not None:
            numbers["train"] = numbers["train"][kept_numbers] if "train" in numbers else kept_numbers
        first = isinstance(splits["train"], Stream)
        checks["validation"] = f"the first {len(splits['validation'])} rows of train" if first else (
            f"cut from train ({part.validation:g}, seed {seed})")
    if isinstance(splits["train"], Stream):
        checks["stream"] = f"order: {part.buffer} rows that follow each other are shuffled together; duplicates in train: not looked for"
    kept = {split: rows for split, rows in splits.items() if not isinstance(rows, Stream)}
    checks["duplicates"] = duplicates(kept, [c.role for c in columns if not c.target])
    for pair, count in checks["duplicates"].items():
        if count:
            warn(f"{count} rows of {pair.replace('/', ' stand word for word in ')}: scores there flatter the model.")
    ordered = {split: splits[split] for split in SPLITS if split in splits}
    return dataclasses.replace(data, splits=ordered, checks=checks, row_numbers=numbers)


MOST_OF_STREAM = 5_000
"""Rows of a stream that are held out at most: they are kept in memory."""
HELD_OUT = ("test", "validation")
"""What is answered and scored where nobody names a split: not what a model was trained on, if there is anything else."""


def evaluation_split(
    source: Any, split: str | None, columns: Sequence[Column], chosen: Mapping[str, str], needs_labels: bool
) -> DataSplits:
    """One split's rows for `evaluate` and `predict`, under its name, or the data's where that has no splits. A column that is gone is
    looked for by name again."""
    raw = sources.load(source)
    if split is not None and split not in raw.splits:
        raise DataError(f"there is no split '{split}'; splits: {'none' if raw.unsplit else listing(raw.splits)}.", where=raw.name,
                        hint="Leave --split out: all rows are taken." if raw.unsplit else None)
    name = split or next((held for held in HELD_OUT if held in raw.splits), next(iter(raw.splits)))
    kept = {role: column for role, column in chosen.items() if column in raw.splits[name].column_names}
    wanted = [c for c in columns if c.needed == "always" or needs_labels or c.role in kept or c.needed == "never"]
    mapping = find_columns(raw.splits[name], wanted, kept, training=needs_labels)
    called = raw.name if raw.unsplit and split is None else name
    rows = rename_to_roles(raw.splits[name], mapping, called)
    refuse_gaps(rows, wanted, called, training=needs_labels)
    return dataclasses.replace(raw, splits={called: rows}, columns=mapping)


def sample(rows: Any, most: int, seed: int) -> tuple[Any, NDArray[np.int64] | None]:
    """Draw at most so many rows by the seed, in their order; of a stream, the first. Returns their numbers too, if drawn."""
    if len(rows) <= most:
        return rows, None
    if isinstance(rows, Stream):
        return rows.between(0, most), None
    numbers = np.array(sorted(random.Random(f"limit/{seed}").sample(range(len(rows)), most)))
    return rows.select(numbers), numbers


def cut_validation(rows: Any, share: float | str, seed: int, label: str | None) -> tuple[Any, Any, NDArray[np.int64] | None]:
    """Train and validation rows, and the numbers of those that stay in train, each label in both in proportion where it has at least two rows.

    Our own few lines because the library's stratified split refuses labels that are rarer than the share.
    """
    if isinstance(share, str) or not 0 < share < 1:
        raise DataError(f"data.validation is a share between 0 and 1, or a source, not {share!r}.")
    if isinstance(rows, Stream):
        wanted = max(1, min(MOST_OF_STREAM, round(share * len(rows))))
        return rows.between(wanted, len(rows)), in_memory(rows, wanted), None
    groups: dict[Any, array[int]] = defaultdict(lambda: array("q"))
    for index, value in enumerate(column_values(rows, label)) if label else ():
        groups[value if isinstance(value, str | int | bool) else None].append(index)
        if len(groups) > len(rows) // 4:  # labels that are numbers, or all but unique: nothing to stratify
            break
    if not label or len(groups) > len(rows) // 4:
        groups = {None: array("q", range(len(rows)))}
    if len(rows) < 4:
        raise DataError(f"{len(rows)} rows are too few to train on and to validate with.", hint="Add rows.")
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


def duplicates(splits: Mapping[str, Rows], roles: Sequence[str]) -> dict[str, int]:
    """How many rows of validation and test stand in train too, and of test in validation."""
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

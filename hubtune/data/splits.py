"""Splits: load rows by role, hold out validation rows, and count duplicates between splits."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubtune.contract import Column
from hubtune.data import sources
from hubtune.data.checks.findings import of_short_rows
from hubtune.data.checks.respell import clean_for_evaluation
from hubtune.data.checks.scan import LEAKS, Hashes, hash_rows
from hubtune.data.checks.targets import has_no_labels, position_names, with_numbers
from hubtune.data.columns import (
    find_columns,
    refuse_gaps,
    refuse_objects,
    rename_stream,
    rename_to_roles,
    unused_columns,
)
from hubtune.data.data_splits import DataSplits
from hubtune.data.files.lines import RowLines
from hubtune.data.formats import dotted_paths
from hubtune.data.formats.paths import SPLITS
from hubtune.data.row_batches import column_batches
from hubtune.data.streaming import Stream
from hubtune.data.validation_split import check_folds, hold_out_fold, hold_out_validation
from hubtune.errors import DataError, listing
from hubtune.recipe import DataConfig, check_encoding


def load_splits(part: DataConfig, columns: Sequence[Column], source: Any = None) -> DataSplits:
    """Load the splits of a source under the task's roles, in their order in the data.

    Values are not checked, see `data.checks`. A validation or test split without any labels is left
    out, and its number of rows is in `checks["unlabelled"]`.

    Args:
        source: overrides `part.source`.

    Raises:
        DataError: no train split, or no column for a role.
    """
    raw = load_sources(part, source)
    train = raw.splits["train"]
    head = train.head if isinstance(train, Stream) else train
    mapping = find_columns(head, columns, part.columns)
    head = dotted_paths.add_columns(head, mapping.values())
    found = {
        split: rows if isinstance(rows, Stream)
        else dotted_paths.add_columns(rows, mapping.values())
        for split, rows in raw.splits.items() if split in SPLITS}
    labels = [c.role for c in columns if c.kind == "label" and c.role in mapping]
    checks: dict[str, Any] = {"unlabelled": count_unlabelled(found, head, columns, mapping)}
    found, names = number_positions(found, mapping["label"] if "label" in labels else None)
    if names:
        checks["label_names"] = names
    splits = {
        split: rename_stream(rows, mapping, labels) if isinstance(rows, Stream)
        else rename_to_roles(rows, mapping, split)
        for split, rows in found.items() if split not in checks["unlabelled"]}
    for split, rows in splits.items():
        if not isinstance(rows, Stream):
            refuse_objects(rows, columns, mapping, split, found[split], raw.lines.get(split))
    others = [split for split in raw.splits if split not in found]
    return dataclasses.replace(raw, splits=splits, columns=mapping, checks=checks,
                               unused_columns=unused_columns(head, mapping),
                               unused_splits=[*raw.unused_splits, *others])


def load_sources(part: DataConfig, source: Any) -> DataSplits:
    """Load the data, with the rows of `data.validation` where that is a source of its own.

    Raises:
        DataError: no train split.
    """
    raw = sources.load(part.source if source is None else source, part.stream,
                       encoding=part.encoding, splits=part.splits)
    if "train" not in raw.splits:
        raise DataError(f"there is no train split; splits: {listing(raw.splits)}.", where=raw.name)
    if not isinstance(part.validation, str):
        return raw
    other = sources.load(part.validation, encoding=part.encoding)
    name, rows = next(iter(other.splits.items()))
    return dataclasses.replace(
        raw, splits={**raw.splits, "validation": rows}, notes=raw.notes + other.notes,
        fingerprint=f"{raw.fingerprint}+{other.fingerprint}",
        lines={**raw.lines, "validation": other.lines.get(name, RowLines())})


def count_unlabelled(
    found: Mapping[str, Any], head: Any, columns: Sequence[Column], mapping: Mapping[str, str]
) -> dict[str, int]:
    """Return the number of rows of each split but train that has no labels at all.

    head: the first rows of train, or all of them.
    """
    targets = [mapping[column.role] for column in columns
               if column.needed == "train" and not column.gaps and column.role in mapping]
    return {split: len(rows) for split, rows in found.items()
            if split != "train" and has_no_labels(rows, head, targets)}


def number_positions(
    found: dict[str, Any], label: str | None
) -> tuple[dict[str, Any], list[str]]:
    """Turn labels that are vectors of named positions into numbers; also return the names."""
    if label is None or isinstance(found["train"], Stream):
        return found, []
    names = position_names(found["train"], label)
    if not names:
        return found, []
    return {split: with_numbers(rows, label) if label in rows.column_names else rows
            for split, rows in found.items()}, names


def training_splits(
    data: DataSplits, part: DataConfig, columns: Sequence[Column], seed: int,
    inputs: Mapping[str, Hashes] | None = None,
) -> tuple[DataSplits, dict[str, Hashes]]:
    """Return train, validation and any test rows; validation is held out from train if missing.

    Args:
        inputs: hashes of the inputs of each row, by split (`Scan.inputs`). Rows with the same are
            held out together. Default: they are computed.

    Returns:
        The splits, and the hashes of the inputs of their rows, but of streams.
    """
    splits, numbers = dict(data.splits), dict(data.row_numbers)
    roles = [column.role for column in columns if not column.target]
    hashes = {
        split: hash_inputs(rows, roles) if inputs is None else inputs[split]
        for split, rows in splits.items() if not isinstance(rows, Stream)}
    if part.limit is not None:
        for split, rows in splits.items():
            splits[split], drawn = sample(rows, part.limit, seed)
            if drawn is not None:
                numbers[split] = renumbered(numbers.get(split), drawn)
                hashes[split] = hashes[split][drawn]
    checks: dict[str, Any] = {**data.checks, "validation": "given"}
    check_folds(part, data.name, "validation" in splits)
    if "validation" not in splits:
        labels = [c.role for c in columns if c.kind == "label" and c.role in data.columns]
        checks["validation"] = add_validation(
            splits, numbers, hashes, part, seed, labels[0] if labels else None, roles)
    if isinstance(splits["train"], Stream):
        checks["stream"] = (f"shuffled within a buffer of {part.buffer} consecutive rows; "
                            "duplicates within train are not counted")
    checks["duplicates"] = count_duplicates(hashes)
    ordered = {split: splits[split] for split in SPLITS if split in splits}
    return dataclasses.replace(
        data, splits=ordered, checks=checks, row_numbers=numbers), hashes


def add_validation(
    splits: dict[str, Any], numbers: dict[str, NDArray[np.int64]], hashes: dict[str, Hashes],
    part: DataConfig, seed: int, label: str | None, roles: Sequence[str],
) -> str:
    """Hold validation rows out from train, in the splits, row numbers and hashes; return how.

    Args:
        label: role of the label whose shares both keep. roles: of the inputs.
    """
    kept: NDArray[np.int64] | None
    held: NDArray[np.int64] | None
    if part.folds is not None and part.fold is not None:
        splits["train"], splits["validation"], kept, held = hold_out_fold(
            splits["train"], part.fold, part.folds, seed, label, hashes.get("train"))
    else:
        splits["train"], splits["validation"], kept, held = hold_out_validation(
            splits["train"], part.validation, seed, label, hashes.get("train"))
    if kept is not None and held is not None:
        before, every = numbers.get("train"), hashes["train"]
        numbers["train"] = renumbered(before, kept)
        numbers["validation"] = renumbered(before, held)
        hashes["train"], hashes["validation"] = every[kept], every[held]
    else:
        hashes["validation"] = hash_inputs(splits["validation"], roles)
    if isinstance(splits["train"], Stream):
        return f"the first {len(splits['validation'])} rows of train"
    if part.fold is not None:
        return f"held out from train (fold {part.fold} of {part.folds}, seed {seed})"
    return f"held out from train ({part.validation:g}, seed {seed})"


def renumbered(
    before: NDArray[np.int64] | None, chosen: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the numbers in the data of rows that were chosen from others."""
    return chosen if before is None else before[chosen]


HELD_OUT = ("test", "validation")
"""Splits that are evaluated by default, in this order, before any that the model was trained on."""


def evaluation_split(
    source: Any, split: str | None, columns: Sequence[Column], recorded: Mapping[str, str],
    needs_labels: bool, operations: Sequence[str] = (), known: Sequence[str] = (),
    say: Callable[[str], None] = lambda text: None, chosen: Mapping[str, str] | None = None,
) -> DataSplits:
    """Load the rows of one split for `evaluate` and `predict`.

    Args:
        recorded: columns by role, of the rows that the model was trained on.
        operations: of `data.clean`, as the model was trained: labels are spelled as in training,
            and rows without a label are left out; all other rows are evaluated.
        known: the labels of the training rows.
        say: gets a sentence on how files were read, and on what an operation did.
        chosen: columns by role, as the user set them; also `encoding`, of text files.

    Returns:
        One split, under its name, or under the name of the data where that has no splits. A
        recorded column that the data lacks is looked up by name again.
    """
    chosen = chosen or {}
    encoding = chosen.get("encoding")
    check_encoding(encoding)
    raw = sources.load(source, encoding=encoding)
    for note in [*raw.notes, *(found.message for found in of_short_rows(raw.lines))]:
        say(note)
    if split is not None and split not in raw.splits:
        names = "none" if raw.unsplit else listing(raw.splits)
        raise DataError(f"there is no split '{split}'; splits: {names}.", where=raw.name,
                        hint="Leave --split out to use all rows." if raw.unsplit else None)
    held_out = (held for held in HELD_OUT if held in raw.splits)
    name = split or next(held_out, next(iter(raw.splits)))
    kept = {role: column for role, column in recorded.items()
            if dotted_paths.find(raw.splits[name], column) is not None}
    kept |= {role: column for role, column in chosen.items() if role != "encoding"}
    wanted = [column for column in columns
              if column.needed != "train" or needs_labels or column.role in kept]
    mapping = find_columns(raw.splits[name], wanted, kept, training=needs_labels)
    called = raw.name if raw.unsplit and split is None else name
    rows = rename_to_roles(raw.splits[name], mapping, called)
    refuse_objects(rows, wanted, mapping, called, raw.splits[name], raw.lines.get(name))
    if needs_labels and operations:
        rows = clean_for_evaluation(rows, columns, operations, known, say)
    refuse_gaps(rows, wanted, called, training=needs_labels)
    return dataclasses.replace(
        raw, splits={called: rows}, columns=mapping, source_rows=raw.splits[name])


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


def hash_inputs(rows: Any, roles: Sequence[str]) -> Hashes:
    """Hash the inputs of each row, (rows,)."""
    present = [role for role in roles if role in rows.column_names]
    parts = [hash_rows(batch, present) for batch in column_batches(rows)]
    return np.concatenate([np.zeros(0, np.int64), *parts])


def count_duplicates(hashes: Mapping[str, Hashes]) -> dict[str, int]:
    """Count the rows of validation and test that are also in train, and of test in validation."""
    return {f"{one}/{other}": int(np.isin(hashes[one], hashes[other]).sum())
            for one, other in LEAKS if one in hashes and other in hashes}

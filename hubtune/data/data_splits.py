"""Splits of data: their rows and origin, and which of them are used under which name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubtune.data.files.lines import RowLines
from hubtune.data.formats.paths import SPLITS, split_of
from hubtune.errors import DataError, did_you_mean, listing

ChosenSplits = Sequence[str] | Mapping[str, str] | None
"""`data.splits`: names of splits, or the split that each name stands for; None: all."""


@dataclass
class DataSplits:
    """Rows by split, and their origin.

    Attributes:
        splits: each a `datasets.Dataset` or a `Stream`; under the data's own column names as `load`
            returns them, and under the roles of the task's columns once these are selected.
        name: without a path.
        fingerprint: hash of all contents.
        repo, commit: of a Hub data set.
        unsplit: the data names no splits, so `train` holds all rows.
        columns: the column of each role.
        row_numbers: for a split sampled from another, the row in the data of each of its rows.
        lines: the line in its file of each row of the data, for splits that were read from lines.
        notes: what the user should know of how the data was read.
        unused_splits, unused_columns: what the data has beside what is used.
        source_rows: of a split to predict or to score, the rows under the data's own column names.
    """

    splits: dict[str, Any]
    name: str
    fingerprint: str
    repo: str | None = None
    commit: str | None = None
    unsplit: bool = False
    columns: dict[str, str] = field(default_factory=dict)
    checks: dict[str, Any] = field(default_factory=dict)
    row_numbers: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    lines: dict[str, RowLines] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unused_splits: list[str] = field(default_factory=list)
    unused_columns: list[str] = field(default_factory=list)
    source_rows: Any = None

    def as_record(self) -> dict[str, Any]:
        """Return the entry for `run.json`."""
        return {
            "name": self.name, "fingerprint": self.fingerprint, "repo": self.repo,
            "commit": self.commit, "columns": self.columns,
            "rows": {split: len(rows) for split, rows in self.splits.items()},
            "unused_columns": self.unused_columns, "unused_splits": self.unused_splits,
            "checks": self.checks,
        }


def split_name(folder: Path, path: Path, chosen: ChosenSplits) -> str | None:
    """Return the split that a file's name or its folders' names say; None if they say none."""
    stem = path.name.partition(".")[0]
    outer = path.relative_to(folder).parts[:-1]
    named = next((name for name in (path.stem, stem, *outer) if name in (chosen or ())), None)
    return named or split_of(path.stem) or next(filter(None, map(split_of, outer)), None)


def choose_splits(data: DataSplits, chosen: ChosenSplits) -> DataSplits:
    """Name splits train, validation and test, and leave out those that are not chosen.

    Raises:
        DataError: a chosen split that the data lacks, or two of one name.
    """
    roles = {name: split_of(name) or name for name in data.splits}
    if chosen is not None:
        roles = chosen_roles(list(data.splits), chosen)
    for role in set(roles.values()):
        several = [name for name, other in roles.items() if other == role]
        if len(several) > 1:
            raise DataError(
                f"there are two {role} splits: {listing(several)}.", where=data.name,
                hint=f"Choose one: --set 'data.splits={{{several[0]} = \"{role}\"}}'")
    return replace(
        data, splits={role: data.splits[name] for name, role in roles.items()},
        lines={role: data.lines[name] for name, role in roles.items() if name in data.lines},
        unused_splits=[*data.unused_splits, *(name for name in data.splits if name not in roles)])


def chosen_roles(names: Sequence[str], chosen: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """Return train, validation or test for the name of each chosen split.

    names: of the splits that the data has.
    """
    roles = {}
    for name in chosen:
        role = chosen[name] if isinstance(chosen, Mapping) else split_of(name)
        if role not in SPLITS:
            raise DataError(
                f"data.splits: '{name}' is not called train, validation or test"
                + (f", and {role!r} is none of them." if role else "."),
                hint=f"Say which it is: --set 'data.splits={{{name} = \"test\"}}'")
        own = next((own for own in names if own == name), None)
        own = own or next((own for own in names if split_of(own) == name), None)
        if own is None:
            raise DataError(f"data.splits: there is no split '{name}'.{did_you_mean(name, names)} "
                            f"Splits: {listing(names)}.")
        roles[own] = str(role)
    return roles

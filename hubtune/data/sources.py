"""Where rows come from: files, folders of them, Hub data sets and plain Python; always as `datasets` splits.

Knows no task: columns keep the names that the data gives them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubtune import hub
from hubtune.data import streaming
from hubtune.data.formats import lookup
from hubtune.data.formats.paths import SPLITS, split_of, visible_files
from hubtune.data.formats.tables import Tables, quiet
from hubtune.data.row_batches import BatchedRows
from hubtune.errors import DataError, did_you_mean, listing
from hubtune.files import of_files, of_rows

HUB_ID = re.compile(r"^(?P<repo>[\w.-]+/[\w.-]+?)(:(?P<config>[\w.-]+))?(@(?P<revision>[\w./-]+))?$")


@dataclass
class DataSplits:
    """Rows by split, and where they came from.

    splits: each a `datasets.Dataset`, or a `Stream`; under the data's own column names as `load` returns them, and under
    the roles of the task's columns once they are selected. name: without a path. fingerprint: a hash of all contents.
    repo, commit: of a Hub data set. unsplit: nothing in the data names splits, so `train` holds all rows. columns: the
    column of each role. row_numbers: of a split that was drawn from another, the row in the data of each of its rows.
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

    def described(self) -> dict[str, Any]:
        """For `run.json`."""
        return {
            "name": self.name, "fingerprint": self.fingerprint, "repo": self.repo, "commit": self.commit,
            "columns": self.columns, "rows": {split: len(rows) for split, rows in self.splits.items()},
            "checks": self.checks,
        }


def load(source: Any, stream: bool = False) -> DataSplits:
    """The splits of a file, a folder, a Hub data set `org/name[:config][@revision]`, or of Python rows. stream: the train split of
    a Hub data set is only read as it is gone through."""
    if not isinstance(source, str | Path):
        refuse_stream(stream, "rows in memory")
        return from_memory(source)
    if not str(source):
        raise DataError("no data: name a file, a folder or a Hub data set.", hint="With --data SOURCE.")
    path = Path(source).expanduser()
    if path.is_dir() or path.is_file():
        refuse_stream(stream, path.name)
        return from_disk(path)
    match = HUB_ID.match(str(source))
    if match and path.suffix not in Tables.suffixes and not str(source).startswith("."):
        return from_hub(match["repo"], match["config"], match["revision"], stream)
    near = did_you_mean(path.name, [item.name for item in path.parent.iterdir()]) if path.parent.is_dir() else ""
    raise DataError(
        f"there is no file or folder '{source}', and it is not a Hub data set of the form org/name.{near}",
        hint="Give --data a csv, tsv, json, jsonl or parquet file, a folder of them or of images or sounds, "
        "or org/name[:config][@revision].",
    )


def from_disk(path: Path) -> DataSplits:
    """Read a file or a folder."""
    name = path.resolve().name
    found = lookup.find(path) if path.is_dir() else None
    if found:
        data = found.read([path])
        splits, files = data.splits, dict(data.files)
    else:
        splits, files = read_files(files_by_split(path) if path.is_dir() else {"train": [path]})
    inside = [file.relative_to(path) if path.is_dir() else Path(file.name) for file in files.values()]
    unsplit = set(splits) == {"train"} and not any(split_of(part) for file in inside for part in file.parts)
    return DataSplits({split: as_dataset(rows, name) for split, rows in splits.items()}, name, of_files(files), unsplit=unsplit)


def read_files(paths_by_split: Mapping[str, list[Path]]) -> tuple[dict[str, Any], dict[str, Path]]:
    """Read the files of every split; returns the rows by split, and all files by name.

    A file that holds several splits, as a workbook does, gives them their names, unless the file names one itself.
    """
    splits: dict[str, Any] = {}
    files: dict[str, Path] = {}
    for split, paths in paths_by_split.items():
        data = lookup.format_of_split(paths).read(paths)
        files |= data.files or {f"{split}/{path.name}": path for path in paths}
        for inner, rows in data.splits.items():
            name = split if inner == "train" else split_of(inner) or inner
            if name in splits:
                raise DataError(f"there are two {name} splits.", where=listing(path.name for path in paths))
            splits[name] = rows
    return splits, files


def as_dataset(rows: Any, where: str) -> Any:
    """Rows of a format as a `datasets.Dataset`."""
    from datasets import Dataset

    if isinstance(rows, Dataset):
        return as_stored(rows)
    if not rows:
        raise DataError("there are no rows in it.", where=where)
    return Dataset.from_list([dict(row) for row in rows])


def from_memory(source: Any) -> DataSplits:
    """Rows that are already here: a `datasets` object, a list of dicts, or either by split."""
    from datasets import Dataset

    splits = source if isinstance(source, Mapping) else {"train": source}
    made = {}
    for split, rows in splits.items():
        try:
            table = rows if isinstance(rows, Dataset) else Dataset.from_list([dict(row) for row in rows])
            made[str(split)] = as_stored(table)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"rows from Python are dicts, not {type(source).__name__}: {' '.join(str(error).split())[:200]}",
                hint='For example: data=[{"text": "What a lovely day", "label": "positive"}, ...]',
            ) from error
    return DataSplits(made, "rows in memory", of_rows({split: BatchedRows(rows) for split, rows in made.items()}),
                      unsplit=not isinstance(source, Mapping))


def as_stored(rows: Any) -> Any:
    """Rows whose images and sounds stay the bytes or paths that they are stored as: decoding is for tasks."""
    from datasets import Audio, Image

    for column, feature in (rows.features or {}).items():  # of a stream of text files, they are not known
        if isinstance(feature, Image | Audio):
            rows = rows.cast_column(column, type(feature)(decode=False))
    return rows


def files_by_split(folder: Path) -> dict[str, list[Path]]:
    """The data files of a folder by split: by the word that their name, or their folder's, begins with."""
    found: dict[str, list[Path]] = {}
    rest = []
    files = [path for path in visible_files(folder) if lookup.find(path)]
    for path in files:
        split = split_of(path.stem) or next((s for p in path.relative_to(folder).parts[:-1] if (s := split_of(p))), None)
        if split:
            found.setdefault(split, []).append(path)
        else:
            rest.append(path)
    if not found and len(rest) == 1:
        return {"train": rest}
    if not found:
        raise DataError(
            f"the folder '{folder.name}' has no train file. Data files in it: {listing(p.name for p in rest) or 'none'}.",
            hint="Name them train.csv, validation.csv and test.csv, or with the suffix of another supported type.",
        )
    return found


def refuse_stream(stream: bool, name: str) -> None:
    """Refuse to stream what is here."""
    if stream:
        raise DataError("only a data set of the Hub is streamed: what is here is read a piece at a time as it is.", where=name,
                        hint="Leave data.stream out.")


def from_hub(repo: str, config: str | None, revision: str | None, stream: bool) -> DataSplits:
    """A data set of the Hub at one commit, read by `datasets`."""
    pinned = hub.resolve(repo, revision, kind="dataset")
    import datasets

    quiet(datasets)
    try:
        made = datasets.load_dataset(repo, config, revision=pinned.commit, streaming=stream)
    except ValueError as error:
        raise DataError(' '.join(str(error).split())[:400], where=repo, hint="Choose with: --data org/name:config") from error
    splits = {split_of(str(split)) or str(split): as_stored(rows) for split, rows in made.items()}
    if stream:
        splits = {split: streaming.of(rows) if split == "train" else streaming.in_memory(rows) for split, rows in splits.items()
                  if split in SPLITS}
    name = f"{repo}:{config}" if config else repo
    return DataSplits(splits, name, pinned.commit, repo=repo, commit=pinned.commit)

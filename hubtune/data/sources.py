"""Data sources: files, folders, Hub data sets and Python objects, loaded as `datasets` splits.

Sources are independent of the task: columns keep the names that they have in the data.
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
from hubtune.data import cache, streaming
from hubtune.data.formats import lookup
from hubtune.data.formats.paths import SPLITS, split_of, visible_files
from hubtune.data.formats.tables import quiet
from hubtune.data.row_batches import BatchedRows
from hubtune.errors import DataError, did_you_mean, listing
from hubtune.files import hash_files, hash_rows

HUB_ID = re.compile(
    r"^(?P<repo>[\w.-]+/[\w.-]+?)(:(?P<config>[\w.-]+))?(@(?P<revision>[\w./-]+))?$")


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

    def as_record(self) -> dict[str, Any]:
        """Return the entry for `run.json`."""
        return {
            "name": self.name, "fingerprint": self.fingerprint, "repo": self.repo,
            "commit": self.commit, "columns": self.columns,
            "rows": {split: len(rows) for split, rows in self.splits.items()},
            "checks": self.checks,
        }


def load(source: Any, stream: bool = False) -> DataSplits:
    """Load the splits of a file, a folder, a Hub data set or Python rows.

    Args:
        source: a path, `org/name[:config][@revision]`, or Python objects.
        stream: read the train split of a Hub data set lazily.
    """
    if not isinstance(source, str | Path):
        refuse_stream(stream, "rows in memory")
        return from_memory(source)
    if not str(source):
        raise DataError("no data: --data is empty.",
                        hint="Give a file, a folder or a Hub data set with: --data SOURCE")
    path = Path(source).expanduser()
    if path.is_dir() or path.is_file():
        refuse_stream(stream, path.name)
        return from_disk(path)
    source = hub.repository_id(str(source), "dataset")
    match = HUB_ID.match(source)
    if match and path.suffix.lower() not in lookup.supported_suffixes() and not source.startswith("."):
        return from_hub(match["repo"], match["config"], match["revision"], stream)
    near = ""
    if path.parent.is_dir():
        near = did_you_mean(path.name, [item.name for item in path.parent.iterdir()])
    raise DataError(
        f"there is no file or folder '{source}', and it is not a Hub data set of the form "
        f"org/name.{near}",
        hint=f"Give --data a file ({listing(lookup.supported_suffixes(), 40)}), a folder of them or "
        "of images or sounds, or org/name[:config][@revision].",
    )


def from_disk(path: Path) -> DataSplits:
    """Read a file or a folder."""
    name = path.resolve().name
    found = lookup.find_format(path) if path.is_dir() else None
    if found:
        data = found.read([path])
        splits, files = data.splits, dict(data.files)
    else:
        splits, files = read_files(files_by_split(path) if path.is_dir() else {"train": [path]})
    inside = [
        file.relative_to(path) if path.is_dir() else Path(file.name) for file in files.values()
    ]
    split_names = any(split_of(part) for file in inside for part in file.parts)
    datasets = {split: as_dataset(rows, name) for split, rows in splits.items()}
    return DataSplits(datasets, name, hash_files(files),
                      unsplit=set(splits) == {"train"} and not split_names)


def read_files(
    paths_by_split: Mapping[str, list[Path]],
) -> tuple[dict[str, Any], dict[str, Path]]:
    """Read the files of every split; return the rows by split, and all files by name.

    A file with several splits, such as a workbook, names them itself, unless the file's name does.
    """
    splits: dict[str, Any] = {}
    files: dict[str, Path] = {}
    for split, paths in paths_by_split.items():
        data = lookup.split_format(paths).read(paths)
        files |= data.files or {f"{split}/{path.name}": path for path in paths}
        for inner, rows in data.splits.items():
            name = split if inner == "train" else split_of(inner) or inner
            if name in splits:
                raise DataError(f"there are two {name} splits.",
                                where=listing(path.name for path in paths))
            splits[name] = rows
    return splits, files


def as_dataset(rows: Any, where: str) -> Any:
    """Convert the rows of a format to a `datasets.Dataset`."""
    from datasets import Dataset

    if isinstance(rows, Dataset):
        return disable_decoding(rows)
    if not rows:
        raise DataError("there are no rows in it.", where=where)
    return Dataset.from_list([dict(row) for row in rows])


def from_memory(source: Any) -> DataSplits:
    """Load Python rows: a `datasets` object, a list of dicts, or a mapping of splits to either."""
    from datasets import Dataset

    splits = source if isinstance(source, Mapping) else {"train": source}
    made = {}
    for split, rows in splits.items():
        try:
            dataset = isinstance(rows, Dataset)
            table = rows if dataset else Dataset.from_list([dict(row) for row in rows])
            made[str(split)] = disable_decoding(table)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"rows from Python must be dicts, not {type(source).__name__}: "
                f"{' '.join(str(error).split())[:200]}",
                hint='For example: data=[{"text": "What a lovely day", "label": "positive"}, ...]',
            ) from error
    fingerprint = hash_rows({split: BatchedRows(rows) for split, rows in made.items()})
    return DataSplits(made, "rows in memory", fingerprint, unsplit=not isinstance(source, Mapping))


def disable_decoding(rows: Any) -> Any:
    """Keep images and sounds as the stored bytes or paths; tasks decode them."""
    from datasets import Audio, Image

    for column, feature in (rows.features or {}).items():  # None for a stream of text files
        if isinstance(feature, Image | Audio):
            rows = rows.cast_column(column, type(feature)(decode=False))
    return rows


def files_by_split(folder: Path) -> dict[str, list[Path]]:
    """Group the data files of a folder by split: by the first word of a file or folder name."""
    found: dict[str, list[Path]] = {}
    rest = []
    files = lookup.with_format(visible_files(folder))
    for path in files:
        outer = path.relative_to(folder).parts[:-1]
        split = split_of(path.stem) or next(filter(None, map(split_of, outer)), None)
        if split:
            found.setdefault(split, []).append(path)
        else:
            rest.append(path)
    if not found and len(rest) == 1:
        return {"train": rest}
    if not found:
        raise DataError(
            f"the folder '{folder.name}' has no train file. "
            f"Data files in it: {listing(p.name for p in rest) or 'none'}.",
            hint="Name them train.csv, validation.csv and test.csv, "
            "or with the suffix of another supported type.",
        )
    return found


def refuse_stream(stream: bool, name: str) -> None:
    """Refuse to stream local data."""
    if stream:
        raise DataError(
            "data.stream applies to data sets of the Hub only; local data is read in batches "
            "anyway.",
            where=name, hint="Remove data.stream from the recipe.")


def from_hub(repo: str, config: str | None, revision: str | None, stream: bool) -> DataSplits:
    """Load a Hub data set at one commit with `datasets`."""
    pinned = hub.resolve(repo, revision, kind="dataset")
    import datasets

    quiet(datasets)
    try:
        made = datasets.load_dataset(repo, config, revision=pinned.commit, streaming=stream,
                                     cache_dir=cache.folder())
    except ValueError as error:
        raise DataError(' '.join(str(error).split())[:400], where=repo,
                        hint="Choose with: --data org/name:config") from error
    splits = {
        split_of(str(split)) or str(split): disable_decoding(rows)
        for split, rows in made.items()
    }
    if stream:
        splits = {
            split: streaming.open_stream(rows) if split == "train" else streaming.to_dataset(rows)
            for split, rows in splits.items() if split in SPLITS}
    name = f"{repo}:{config}" if config else repo
    return DataSplits(splits, name, pinned.commit, repo=repo, commit=pinned.commit)

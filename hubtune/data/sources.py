"""Where rows come from: files, folders of them, Hub data sets and plain Python; always as `datasets` splits.

Knows no task: columns keep the names that the data gives them.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hubtune import guest, hub
from hubtune.data import streaming
from hubtune.data.formats import folders
from hubtune.data.formats.folders import SPLITS as SPLITS
from hubtune.data.formats.folders import split_of
from hubtune.data.row_batches import BatchedRows
from hubtune.errors import DataError, did_you_mean, listing
from hubtune.files import of_files, of_rows

FORMATS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}
HUB_ID = re.compile(r"^(?P<repo>[\w.-]+/[\w.-]+?)(:(?P<config>[\w.-]+))?(@(?P<revision>[\w./-]+))?$")


@dataclass
class Source:
    """Raw splits and where they came from. `name` holds no path; `commit` is a Hub data set's. whole: nothing in the data speaks of
    splits, so that what is called train here is all of it."""

    splits: dict[str, Any]
    name: str
    fingerprint: str
    repo: str | None = None
    commit: str | None = None
    files: dict[str, str] = field(default_factory=dict)
    whole: bool = False


def load(source: Any, stream: bool = False) -> Source:
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
    if match and path.suffix not in FORMATS and not str(source).startswith("."):
        return from_hub(match["repo"], match["config"], match["revision"], stream)
    near = did_you_mean(path.name, [item.name for item in path.parent.iterdir()]) if path.parent.is_dir() else ""
    raise DataError(
        f"there is no file or folder '{source}', and it is not a Hub data set of the form org/name.{near}",
        hint="Give --data a csv, tsv, json, jsonl or parquet file, a folder of them or of images or sounds, "
        "or org/name[:config][@revision].",
    )


def from_disk(path: Path) -> Source:
    """The rows of a file or a folder."""
    name = path.resolve().name
    special = folders.load(path, read) if path.is_dir() else folders.load_file(path)
    if special:
        made, files = from_media(*special, name), [*special[1].values()]
    else:
        splits = folder_splits(path) if path.is_dir() else {"train": [path]}
        made, files = from_files(splits, name), [file for found in splits.values() for file in found]
    inside = [file.relative_to(path) if path.is_dir() else Path(file.name) for file in files]
    made.whole = set(made.splits) == {"train"} and not any(split_of(part) for file in inside for part in file.parts)
    return made


def from_media(splits: Mapping[str, Any], files: Mapping[str, Path], name: str) -> Source:
    """Rows of a folder of images, sounds or tagged words; the fingerprint is that of all its files."""
    return Source(dict(splits), name, of_files(files), files={s: f"{len(rows)} rows" for s, rows in splits.items()})


def from_memory(source: Any) -> Source:
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
    return Source(made, "rows in memory", of_rows({split: BatchedRows(rows) for split, rows in made.items()}),
                  whole=not isinstance(source, Mapping))


def as_stored(rows: Any) -> Any:
    """Rows whose images and sounds stay the bytes or paths that they are stored as: decoding is for tasks."""
    from datasets import Audio, Image

    for column, feature in (rows.features or {}).items():  # of a stream of text files, they are not known
        if isinstance(feature, Image | Audio):
            rows = rows.cast_column(column, type(feature)(decode=False))
    return rows


def folder_splits(folder: Path) -> dict[str, list[Path]]:
    """The data files of a folder by split, told by the word their name (or their folder's) begins with."""
    found: dict[str, list[Path]] = {}
    rest = []
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in FORMATS and path.is_file()
             and not any(part.startswith(".") for part in path.relative_to(folder).parts)]
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
            hint="Name them train.csv, validation.csv and test.csv (or .tsv, .json, .jsonl, .parquet).",
        )
    return found


def from_files(splits: Mapping[str, list[Path]], name: str) -> Source:
    """Read each split's files with `datasets`."""
    named = {f"{split}/{path.name}": path for split, paths in splits.items() for path in paths}
    for path in named.values():
        if path.suffix.lower() not in FORMATS:
            raise DataError(
                f"'{path.name}' is of no kind that can be read.", hint=f"Kinds: {listing(sorted(FORMATS))}."
            )
        if not path.stat().st_size:
            raise DataError("the file is empty: it has no header and no rows.", where=path.name)
    made = {split: beside(as_stored(read(paths)), paths) for split, paths in splits.items()}
    return Source(made, name, of_files(named), files={s: listing(p.name for p in ps) for s, ps in splits.items()})


def beside(rows: Any, paths: list[Path]) -> Any:
    """Rows of tables, where columns that name images or sounds from where the table lies become their paths."""
    folder = paths[0].parent
    for column in rows.column_names:
        first = rows[0][column]
        if isinstance(first, str) and folders.column_of(first) and (folder / first).is_file():
            values = [str(folder / value) if value else value for value in rows[column]]
            rows = rows.remove_columns(column).add_column(column, values)
    return rows


def read(paths: list[Path]) -> Any:
    """One split from its files, all of one format."""
    kinds = {FORMATS[path.suffix.lower()] for path in paths}
    if len(kinds) > 1:
        raise DataError(f"one split is in several formats: {listing(path.name for path in paths)}.")
    kind = kinds.pop()
    for path in paths:
        refuse_encoding(path, kind)
    more = csv_arguments(paths) if kind == "csv" else {}
    import datasets

    quiet(datasets)
    try:
        made = datasets.load_dataset(kind, data_files=[str(path) for path in paths], split="train", **more)
    except (datasets.exceptions.DatasetGenerationError, ValueError, OSError) as error:
        cause = error.__cause__ or error
        if "corresponds to no data" in str(cause):
            raise DataError("there are no rows in it.", where=listing(path.name for path in paths)) from error
        raise DataError(
            f"cannot be read as {kind}: {' '.join(str(cause).split())[:300]}", where=listing(path.name for path in paths)
        ) from error
    if not len(made):
        raise DataError("there are no rows in it.", where=listing(path.name for path in paths))
    return made


def csv_arguments(paths: list[Path]) -> dict[str, Any]:
    """Every column as text, so that `NA`, `null` and `007` stay what they are; types are told apart later."""
    from datasets import Features, Value

    headers = {path: header(path) for path in paths}
    names, delimiter = headers[paths[0]]
    for path, (others, _) in headers.items():
        if others != names:
            raise DataError(f"its columns {others} differ from those of {paths[0].name}: {names}.", where=path.name)
    return {
        "features": Features({name: Value("string") for name in names}),
        "keep_default_na": False, "delimiter": delimiter, "encoding": "utf-8-sig",
    }


def refuse_encoding(path: Path, kind: str) -> None:
    """Refuse text that is not UTF-8, before a library stumbles over it in the middle."""
    if kind == "parquet":
        return
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            while file.read(1 << 20):
                pass
    except UnicodeDecodeError as error:
        raise DataError(
            f"it is not UTF-8 ({error.reason}).", where=path.name,
            hint=f"Convert it with: iconv -f LATIN1 -t UTF-8 {path.name} > utf8-{path.name}",
        ) from None


def header(path: Path) -> tuple[list[str], str]:
    """The column names of a table and what separates them."""
    csv.field_size_limit(2**31 - 1)  # the reader's own limit is a text of 131072 characters
    with path.open(encoding="utf-8-sig", newline="") as file:
        line = file.readline()
        delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t|", key=line.count)
        first = next((cells for cells in csv.reader(file, delimiter=delimiter) if cells), [])
    names = next(csv.reader([line], delimiter=delimiter), [])
    twice = {name for name in names if names.count(name) > 1}
    if twice or not any(name.strip() for name in names):
        what = f"the header names {listing(sorted(twice))} twice" if twice else "there is no header line"
        raise DataError(f"{what}: {names}.", where=path.name)
    if len(first) > len(names):  # pandas would take the first column for an index and shift all others
        raise DataError(f"its first row has {len(first)} cells, and its header {len(names)}.", where=path.name)
    return names, delimiter


def refuse_stream(stream: bool, name: str) -> None:
    """Refuse to stream what is here."""
    if stream:
        raise DataError("only a data set of the Hub is streamed: what is here is read a piece at a time as it is.", where=name,
                        hint="Leave data.stream out.")


def from_hub(repo: str, config: str | None, revision: str | None, stream: bool) -> Source:
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
    return Source(splits, name, pinned.commit, repo=repo, commit=pinned.commit)


def quiet(datasets: Any) -> None:
    """Turn off the progress bars of `datasets`, until the call of our API ends."""
    if datasets.are_progress_bars_disabled():
        return
    datasets.disable_progress_bars()
    guest.afterwards(datasets.enable_progress_bars)

"""Data sources: files, folders, Hub data sets and Python objects, loaded as `datasets` splits.

Sources are independent of the task: columns keep the names that they have in the data.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hubtune import environment, hub
from hubtune.data import cache, streaming
from hubtune.data.data_splits import (
    ChosenSplits,
    DataSplits,
    choose_splits,
    chosen_roles,
    split_name,
)
from hubtune.data.files import locations
from hubtune.data.files.packed import SUFFIXES, is_packed, new_folder, unpack
from hubtune.data.files.text import current, reading
from hubtune.data.formats import lookup
from hubtune.data.formats.paths import SPLITS, split_of, visible_files
from hubtune.data.row_batches import BatchedRows
from hubtune.errors import DataError, did_you_mean, listing
from hubtune.files import hash_files, hash_rows

HUB_ID = re.compile(
    r"^(?P<repo>[\w.-]+/[\w.-]+?)(:(?P<config>[\w.-]+))?(@(?P<revision>[\w./-]+))?$")

def load(
    source: Any, stream: bool = False, *, encoding: str | None = None,
    splits: Sequence[str] | Mapping[str, str] | None = None,
) -> DataSplits:
    """Load the splits of files, a folder, a Hub data set or Python rows.

    Args:
        source: a path, a pattern of paths, `-` for standard input, `org/name[:config][@revision]`,
            or Python objects.
        stream: read the train split of a Hub data set lazily.
        encoding: of text files; None: as they say, or guessed.
        splits: those to use, by name; or the split that each name stands for.
    """
    if not isinstance(source, str | Path):
        refuse_stream(stream, "rows in memory")
        return choose_splits(from_memory(source), splits)
    if not str(source):
        raise DataError("no data: --data is empty.",
                        hint="Give a file, a folder or a Hub data set with: --data SOURCE")
    if locations.is_stdin(source):
        source = locations.save_stdin(str(source), new_folder())
    if paths := locations.find(str(source)):
        refuse_stream(stream, Path(source).name)
        with reading(encoding) as session:
            data = from_files(paths, str(source), splits)
        return replace(data, notes=session.notes)
    source = hub.repository_id(str(source), "dataset")
    path, match = Path(source).expanduser(), HUB_ID.match(source)
    is_file_name = path.suffix.lower() in (*lookup.supported_suffixes(), *SUFFIXES)
    if match and not is_file_name and not source.startswith("."):
        return from_hub(match["repo"], match["config"], match["revision"], stream, splits)
    near = ""
    if path.parent.is_dir():
        near = did_you_mean(path.name, [item.name for item in path.parent.iterdir()])
    raise DataError(
        f"there is no file or folder '{source}', and it is not a Hub data set of the form "
        f"org/name.{near}",
        hint=f"Give --data a file ({listing(lookup.supported_suffixes(), 40)}), a folder of them or "
        "of images or sounds, or org/name[:config][@revision].",
    )


def from_files(paths: Sequence[Path], source: str, chosen: ChosenSplits) -> DataSplits:
    """Read a file, a folder, or the files of a pattern; compressed ones from a copy.

    Raises:
        DataError: it cannot be read, by this user or at all.
    """
    try:
        return from_disk(paths[0], chosen) if len(paths) == 1 else from_pattern(paths, source, chosen)
    except OSError as error:
        if problem := environment.explain(error):
            raise problem from error
        name = error.filename or paths[0]
        raise DataError(f"it cannot be read: {error.strerror or error}.",
                        where=Path(str(name)).name) from error


def from_pattern(paths: Sequence[Path], source: str, chosen: ChosenSplits) -> DataSplits:
    """Read the files that a pattern names: each is a part of the split that its name says."""
    names = {path: split_name(path.parent, path, chosen) for path in paths}
    if any(names.values()) and not all(names.values()):
        stray = [path.name for path, split in names.items() if split is None]
        raise DataError(
            f"'{source}' fits files that name a split and others: {listing(stray)}.",
            hint="Give a pattern for the training files alone, and name the others with "
            "data.validation.")
    by_split: dict[str, list[Path]] = {}
    for path, split in names.items():
        by_split.setdefault(split or "train", []).append(unpack(path))
    data = read_splits(by_split, Path(source).name, chosen)
    return replace(data, unsplit=not any(names.values()))


def from_disk(path: Path, chosen: ChosenSplits) -> DataSplits:
    """Read a file or a folder."""
    cache.quiet()
    name = path.resolve().name
    path = unpack(path)
    found = lookup.find_format(path) if path.is_dir() else None
    if found:
        content = found.read([path])
        splits = {split: as_dataset(rows, name) for split, rows in content.splits.items()}
        inside = [file.relative_to(path) for file in content.files.values()]
        split_names = any(split_of(part) for file in inside for part in file.parts)
        made = DataSplits(splits, name, hash_files(content.files),
                          unsplit=set(splits) == {"train"} and not split_names)
        return choose_splits(made, chosen)
    if not path.is_dir():
        data = read_splits({"train": [path]}, name, chosen)
        return replace(data, unsplit=set(data.splits) == {"train"} and not split_of(path.name))
    by_split, rest, is_named = files_by_split(path, chosen)
    if chosen is not None:
        used = chosen_roles(list(by_split), chosen)
        rest = [*(split for split in by_split if split not in used), *rest]
        by_split = {split: by_split[split] for split in used}
    data = read_splits(by_split, name, chosen)
    return replace(data, unused_splits=[*data.unused_splits, *rest],
                   unsplit=set(data.splits) == {"train"} and not is_named)


def read_splits(
    paths_by_split: Mapping[str, list[Path]], name: str, chosen: ChosenSplits
) -> DataSplits:
    """Read the files of every split.

    A file with several splits, such as a workbook, names them itself, unless the file's name does.
    """
    made = DataSplits({}, name, "")
    files: dict[str, Path] = {}
    for split, paths in paths_by_split.items():
        data = lookup.split_format(paths).read(paths)
        files |= data.files or {f"{split}/{path.name}": path for path in paths}
        for inner, rows in data.splits.items():
            own = split if inner == "train" else split_of(inner) or inner
            if own in made.splits:
                raise DataError(f"there are two {own} splits.",
                                where=listing(path.name for path in paths))
            made.splits[own] = as_dataset(rows, name)
            if lines := current().lines.get(tuple(paths)):
                made.lines[own] = lines
    made.fingerprint = hash_files(files)
    return choose_splits(made, chosen)


def as_dataset(rows: Any, where: str) -> Any:
    """Convert the rows of a format to a `datasets.Dataset`."""
    from datasets import Dataset

    if isinstance(rows, Dataset):
        return disable_decoding(rows)
    if not rows:
        raise DataError("there are no rows in it.", where=where)
    return from_rows(rows)


def from_rows(rows: Iterable[Mapping[str, Any]]) -> Any:
    """Return rows as a `datasets.Dataset` with the columns of all of them.

    `Dataset.from_list` takes those of the first row, and drops what only later ones have.
    """
    from datasets import Dataset

    tables = [dict(row) for row in rows]
    names = dict.fromkeys(name for table in tables for name in table)
    return Dataset.from_dict({name: [table.get(name) for table in tables] for name in names})


def from_memory(source: Any) -> DataSplits:
    """Load Python rows: a `datasets` object, a list of dicts, or a mapping of splits to either."""
    from datasets import Dataset

    cache.quiet()
    splits = source if isinstance(source, Mapping) else {"train": source}
    made = {}
    for split, rows in splits.items():
        try:
            dataset = isinstance(rows, Dataset)
            table = rows if dataset else from_rows(rows)
            made[str(split)] = disable_decoding(table)
        except OverflowError as error:
            raise DataError("a number in the rows takes more than 64 bits.",
                            hint="Write it as a text, or leave its column out.") from error
        except (TypeError, ValueError) as error:
            raise DataError(
                f"rows from Python must be dicts, not {type(source).__name__}: "
                f"{' '.join(str(error).split())[:200]}",
                hint='For example: data=[{"text": "What a lovely day", "label": "positive"}, ...]',
            ) from error
    if empty := [split for split, rows in made.items() if not rows.column_names]:
        raise DataError(f"the rows of {listing(empty)} have no columns.",
                        hint='For example: data=[{"text": "What a lovely day", "label": "positive"}, ...]')
    fingerprint = hash_rows({split: BatchedRows(rows) for split, rows in made.items()})
    return DataSplits(made, "rows in memory", fingerprint, unsplit=not isinstance(source, Mapping))


def disable_decoding(rows: Any) -> Any:
    """Keep images and sounds as the stored bytes or paths; tasks decode them."""
    from datasets import Audio, Image

    for column, feature in (rows.features or {}).items():  # None for a stream of text files
        if isinstance(feature, Image | Audio):
            rows = rows.cast_column(column, type(feature)(decode=False))
    return rows


def files_by_split(
    folder: Path, chosen: ChosenSplits = None
) -> tuple[dict[str, list[Path]], list[str], bool]:
    """Group the data files of a folder by split: by the first word of a file or folder name.

    Returns:
        Files by split, compressed ones as their copies; the names of files of no split; and
        whether any name tells a split.
    """
    found: dict[str, list[Path]] = {}
    rest: list[Path] = []
    plain = {path: unpack(path) if is_packed(path) else path for path in visible_files(folder)}
    known = set(lookup.with_format(file for file in plain.values() if file.is_file()))
    for path, file in plain.items():
        if file not in known:
            continue
        split = split_name(folder, path, chosen)
        if split:
            found.setdefault(split, []).append(file)
        else:
            rest.append(path)
    if not found and len(rest) == 1:
        return {"train": [plain[rest[0]]]}, [], False
    if not found:
        raise DataError(
            f"the folder '{folder.name}' has no train file. "
            f"Data files in it: {listing(p.name for p in rest) or 'none'}.",
            hint="Name them train.csv, validation.csv and test.csv, "
            "or with the suffix of another supported type.",
        )
    return found, [path.name for path in rest], True


def refuse_stream(stream: bool, name: str) -> None:
    """Refuse to stream local data."""
    if stream:
        raise DataError(
            "data.stream applies to data sets of the Hub only; local data is read in batches "
            "anyway.",
            where=name, hint="Remove data.stream from the recipe.")


def from_hub(
    repo: str, config: str | None, revision: str | None, stream: bool, chosen: ChosenSplits
) -> DataSplits:
    """Load a Hub data set at one commit with `datasets`."""
    pinned = hub.resolve(repo, revision, kind="dataset")
    import datasets

    cache.quiet()
    try:
        made = datasets.load_dataset(repo, config, revision=pinned.commit, streaming=stream,
                                     cache_dir=cache.folder())
    except ValueError as error:
        raise DataError(' '.join(str(error).split())[:400], where=repo,
                        hint="Choose with: --data org/name:config") from error
    name = f"{repo}:{config}" if config else repo
    splits = {str(split): disable_decoding(rows) for split, rows in made.items()}
    data = choose_splits(DataSplits(splits, name, pinned.commit, repo=repo, commit=pinned.commit),
                         chosen)
    if not stream:
        return data
    read = {split: streaming.open_stream(rows) if split == "train" else streaming.to_dataset(rows)
            for split, rows in data.splits.items() if split in SPLITS}
    others = [split for split in data.splits if split not in SPLITS]
    return replace(data, splits=read, unused_splits=[*data.unused_splits, *others])

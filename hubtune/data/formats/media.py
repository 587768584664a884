"""Images and sounds: single files, and folders by class, with metadata, with masks or with boxes.

Nothing is decoded here: the values of the columns image, audio and mask are paths.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hubtune.contract import DataFormat, FileData
from hubtune.data.formats import coco, tables
from hubtune.data.formats.paths import (
    COLUMN_OF_SUFFIX,
    by_relative_path,
    media_column,
    split_in_path,
    split_of,
    visible_files,
)
from hubtune.data.labels import row_numbers
from hubtune.errors import DataError, listing

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
IMAGES = ("images", "image", "imgs", "img")
MASKS = coco.ANNOTATION_FOLDERS


class Media(DataFormat[Any]):
    """An image or a sound, or a folder of them."""

    contract = 2
    name = "media"
    summary = "images and sounds: files, and folders by class, with metadata, masks or boxes"
    suffixes = tuple(COLUMN_OF_SUFFIX)

    def matches(self, path: Path) -> bool:
        """Match a suffix; or a folder of such files, unless tables named by split refer to them."""
        if not path.is_dir():
            return super().matches(path)
        files = visible_files(path)
        if not any(map(media_column, files)):
            return False
        tables_of_splits = any(
            file.parent == path and file.suffix.lower() in tables.FORMATS and split_of(file.stem)
            for file in files)
        return not tables_of_splits or read_annotated(path, files) is not None

    def read(self, paths: Sequence[Path]) -> FileData:
        """Read a folder, or files as one row each."""
        if paths[0].is_dir():
            files = visible_files(paths[0])
            media = [file for file in files if media_column(file)]
            return read_annotated(paths[0], files) or read_classes(paths[0], media)
        column = single_column(paths, paths[0].name)
        return FileData({"train": build_dataset({column: [str(path) for path in paths]})})


def read_annotated(folder: Path, files: Sequence[Path]) -> FileData | None:
    """Read images with boxes, files with metadata, or images with masks; None without these."""
    return (coco.read_folder(folder, files) or read_metadata(folder, files)
            or read_masks(folder, files))


def build_dataset(columns: Mapping[str, Sequence[Any]]) -> Any:
    """Build a `datasets.Dataset` from columns."""
    from datasets import Dataset

    return Dataset.from_dict(dict(columns))


# ---------------------------------------------------------------------------- folders by class


def read_classes(folder: Path, media: Sequence[Path]) -> FileData:
    """Read `split/label/x.png` or `label/x.png`; files outside of label folders have no label."""
    places = {path: path.relative_to(folder).parts for path in media}
    while (len({parts[0] for parts in places.values() if len(parts) > 2}) == 1
           and all(len(parts) > 2 for parts in places.values())):
        if split_of(next(iter(places.values()))[0]):
            break
        places = {path: parts[1:] for path, parts in places.items()}  # one folder around everything
    tops = {parts[0] for parts in places.values() if len(parts) > 1}
    in_splits = (bool(tops) and all(split_of(top) for top in tops)
                 and all(len(parts) > 1 for parts in places.values()))
    split: dict[str, list[tuple[Path, str | None]]] = defaultdict(list)
    for path, parts in places.items():
        inner = parts[1:] if in_splits else parts
        label = inner[-2] if len(inner) > 1 else None
        split[split_of(parts[0]) or "train" if in_splits else "train"].append((path, label))
    made = {}
    for name, found in split.items():
        labelled = [label is not None for _, label in found]
        if any(labelled) and not all(labelled):
            stray = [path.name for path, label in found if label is None]
            raise DataError(
                f"{len(stray)} of {len(found)} files of {name} are outside of label folders: "
                f"{listing(stray, 4)}.", where=folder.name,
                hint=f"Move the files of each label to: {name}/LABEL/")
        column = single_column([path for path, _ in found], folder.name)
        columns: dict[str, list[Any]] = {column: [str(path) for path, _ in found]}
        if all(labelled):
            columns["label"] = [label for _, label in found]
        made[name] = build_dataset(columns)
    return FileData(made, by_relative_path(folder, media))


def single_column(paths: Sequence[str | Path], where: str) -> str:
    """Return the column, image or audio, of all files; refuse a mixture."""
    kinds = Counter(media_column(path) or "other" for path in paths)
    if len(kinds) > 1 or "other" in kinds:
        odd = min(kinds, key=lambda kind: kinds[kind])
        names = [Path(path).name for path in paths if (media_column(path) or "other") == odd]
        raise DataError(f"its files are of several kinds, {dict(kinds)}: {listing(names, 4)}.",
                        where=where, hint="Keep images and sounds in separate folders.")
    return next(iter(kinds))


# ------------------------------------------------------------------------------- with metadata


def read_metadata(folder: Path, files: Sequence[Path]) -> FileData | None:
    """Read files listed in metadata as `file_name`; `x_file_name` becomes column x."""
    made: dict[str, list[Any]] = defaultdict(list)
    used = []
    for path in files:
        if path.name.lower() not in METADATA or path.stat().st_size == 0:
            continue
        rows = tables.read_split([path])
        if "file_name" not in rows.column_names:
            continue
        used.append(path)
        own = split_in_path(folder, path)
        where = path.relative_to(folder).as_posix()
        outer = path.relative_to(folder).parts[:-1]
        named = own != "train" or any(split_of(part) for part in outer)
        names = [str(name) for name in rows["file_name"]]
        splits = [
            own if named or not name else split_of(Path(name).parts[0]) or own for name in names
        ]
        for column in rows.column_names:
            if column != "file_name" and not column.endswith("_file_name"):
                continue
            rows, paths = with_paths(rows, column, path.parent, where)
            used += paths
        for split in dict.fromkeys(splits):
            made[split].append(rows.select([i for i, other in enumerate(splits) if other == split]))
    if not made:
        return None
    from datasets import concatenate_datasets

    splits_of_rows = {split: concatenate_datasets(parts) for split, parts in made.items()}
    return FileData(splits_of_rows, by_relative_path(folder, used))


def with_paths(rows: Any, column: str, folder: Path, where: str) -> tuple[Any, list[Path]]:
    """Replace a column of file names by a column of paths; return the rows and the paths."""
    names = list(rows[column])
    paths = [folder / str(name).replace("\\", "/") for name in names]
    gone = [index for index, path in enumerate(paths) if not names[index] or not path.is_file()]
    if gone:
        parent = paths[gone[0]].parent
        near = sorted(path.name for path in parent.iterdir()) if parent.is_dir() else []
        raise DataError(
            f"{len(gone)} of {len(names)} rows name a missing file: {names[gone[0]]!r} in "
            f"{row_numbers(gone)}.", where=where,
            hint=f"A {column} is relative to the metadata file. That folder has: "
            f"{listing(near, 4) or 'no such folder'}.",
        )
    media = column == "file_name"
    role = single_column(paths, folder.name) if media else column.removesuffix("_file_name")
    if role in rows.column_names:
        rows = rows.remove_columns(role)
    values = [str(path) for path in paths]
    return rows.remove_columns(column).add_column(role, values), paths


# ---------------------------------------------------------------------------- images and masks


def read_masks(folder: Path, files: Sequence[Path]) -> FileData | None:
    """Read `split/images/x.jpg` with `split/masks/x.png`, or `images/split/x.jpg` likewise."""
    sides: dict[str, dict[tuple[str, ...], Path]] = {"image": {}, "mask": {}}
    for path in filter(media_column, files):
        parts = path.relative_to(folder).parts[:-1]
        for side, words in (("image", IMAGES), ("mask", MASKS)):
            place = next((i for i, part in enumerate(parts) if part.lower() in words), None)
            if place is not None:
                stem = re.sub(r"[-_]mask$", "", path.stem) if side == "mask" else path.stem
                sides[side][(*parts[:place], *parts[place + 1:], stem)] = path
                break
    images, masks = sides["image"], sides["mask"]
    if not images or not masks:
        return None
    for one, other, what in (
            (masks, images, "masks have no image"), (images, masks, "images have no mask")):
        alone = sorted(set(one) - set(other))
        if alone:
            shown = listing([one[key].relative_to(folder).as_posix() for key in alone], 4)
            raise DataError(
                f"{len(alone)} of {len(one)} {what}: {shown}.", where=folder.name,
                hint="Give an image and its mask the same name: images/a.jpg and masks/a.png.",
            )
    split = defaultdict(list)
    for key in sorted(images):
        split[next((s for part in key[:-1] if (s := split_of(part))), "train")].append(key)
    made = {name: build_dataset({"image": [str(images[key]) for key in keys],
                                 "mask": [str(masks[key]) for key in keys]})
            for name, keys in split.items()}
    return FileData(made, by_relative_path(folder, [*images.values(), *masks.values()]))

"""Rows from folders of files: images and sounds by class or with metadata, images with masks or boxes, tagged words.

Nothing is decoded here: the values of the columns image, audio and mask are paths.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hubtune.data.formats import coco, conll
from hubtune.data.labels import row_numbers
from hubtune.errors import DataError, listing

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
MEDIA = {
    "image": (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    "audio": (".wav", ".flac", ".ogg", ".mp3"),
}
COLUMN_OF = {suffix: column for column, suffixes in MEDIA.items() for suffix in suffixes}
TABLES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
IMAGES = ("images", "image", "imgs", "img")
MASKS = ("masks", "mask", "labels", "annotations", "segmentations", "labelmaps")

Reader = Callable[[list[Path]], Any]
Made = tuple[dict[str, Any], dict[str, Path]]
"""Rows by split, and every file that they came from, by its name in the folder."""


def load(folder: Path, read: Reader) -> Made | None:
    """The splits of a folder of images, sounds or tagged words; None for a folder of tables.

    read: makes rows of table files.
    """
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()
             and not any(part.startswith((".", "__MACOSX")) for part in path.relative_to(folder).parts)]
    media = [path for path in files if column_of(path)]
    if media:
        made = boxed(folder, files, media) or described(folder, files, read) or masked(folder, media)
        tables = [path for path in files if path.parent == folder and path.suffix.lower() in TABLES and split_of(path.stem)]
        return made or (None if tables else classes(folder, media))
    return tagged_words({path: split_in(folder, path) for path in files if conll.is_conll(path)})


def load_file(path: Path) -> Made | None:
    """The rows of one file that is no table: an image or a sound, tagged words, a COCO document; or None."""
    column = column_of(path)
    if column:
        return {"train": rows_of({column: [str(path)]})}, {path.name: path}
    if path.suffix.lower() == ".json" and (document := coco.document(path)):
        around = path.parent.parent if path.parent.name.lower() in MASKS else path.parent
        media = [other for other in sorted(around.rglob("*")) if column_of(other) == "image"]
        return {"train": coco.rows(document, path, nearest(media, around, split_in(around, path)), "train")}, {path.name: path}
    return tagged_words({path: "train"}) if conll.is_conll(path) else None


def column_of(path: str | Path) -> str | None:
    """`image` or `audio`, by the end of a file's name."""
    return COLUMN_OF.get(Path(path).suffix.lower())


def split_of(name: str) -> str | None:
    """The split that a file or folder name begins with: `train`, `dev-00000-of-00002`, `test_small`."""
    word = re.split(r"[-_.\s\d]", name.lower(), maxsplit=1)[0]
    return next((split for split, words in SPLITS.items() if word in words), None)


def split_in(folder: Path, path: Path) -> str:
    """The split that a path inside a folder names, its own name first; `train` where it names none."""
    names = [path.stem, *reversed(path.relative_to(folder).parts[:-1])]
    words = [word for name in names for word in re.split(r"[-_.\s\d]", name) if word]
    return next((split for word in words if (split := split_of(word))), "train")


def rows_of(columns: Mapping[str, Sequence[Any]]) -> Any:
    """Columns as rows of `datasets`."""
    from datasets import Dataset

    return Dataset.from_dict(dict(columns))


def by_name(folder: Path, paths: Iterable[Path]) -> dict[str, Path]:
    """Files by their place in the folder, wherever the folder lies."""
    return {path.relative_to(folder).as_posix(): path for path in paths}


# ------------------------------------------------------------------------------------------------- folders by class


def classes(folder: Path, media: Sequence[Path]) -> Made:
    """`split/label/x.png` or `label/x.png`: a label is the folder that a file lies in; files beside it have none."""
    places = {path: path.relative_to(folder).parts for path in media}
    while len({parts[0] for parts in places.values() if len(parts) > 2}) == 1 and all(len(p) > 2 for p in places.values()):
        if split_of(next(iter(places.values()))[0]):
            break
        places = {path: parts[1:] for path, parts in places.items()}  # one folder around everything
    tops = {parts[0] for parts in places.values() if len(parts) > 1}
    in_splits = bool(tops) and all(split_of(top) for top in tops) and all(len(p) > 1 for p in places.values())
    split: dict[str, list[tuple[Path, str | None]]] = defaultdict(list)
    for path, parts in places.items():
        inner = parts[1:] if in_splits else parts
        split[split_of(parts[0]) or "train" if in_splits else "train"].append((path, inner[-2] if len(inner) > 1 else None))
    made = {}
    for name, found in split.items():
        labelled = [label is not None for _, label in found]
        if any(labelled) and not all(labelled):
            stray = [path.name for path, label in found if label is None]
            raise DataError(f"{len(stray)} of {len(found)} files of {name} lie in no label's folder: {listing(stray, 4)}.",
                            where=folder.name, hint=f"Files of one label belong in: {name}/LABEL/")
        columns: dict[str, list[Any]] = {one_kind([path for path, _ in found], folder): [str(path) for path, _ in found]}
        if all(labelled):
            columns["label"] = [label for _, label in found]
        made[name] = rows_of(columns)
    return made, by_name(folder, media)


def one_kind(paths: Sequence[str | Path], folder: Path) -> str:
    """The one column that all files belong in."""
    kinds = Counter(column_of(path) or "other" for path in paths)
    if len(kinds) > 1 or "other" in kinds:
        odd = min(kinds, key=lambda kind: kinds[kind])
        shown = listing([Path(path).name for path in paths if (column_of(path) or "other") == odd], 4)
        raise DataError(f"its files are of several kinds, {dict(kinds)}: {shown}.", where=folder.name,
                        hint="Keep images and sounds in folders of their own.")
    return next(iter(kinds))


# ------------------------------------------------------------------------------------------------- with metadata


def described(folder: Path, files: Sequence[Path], read: Reader) -> Made | None:
    """Files with a `metadata.csv` or `.jsonl` that names each as `file_name`; further `x_file_name` become column x."""
    made: dict[str, list[Any]] = defaultdict(list)
    used = []
    for path in files:
        if path.name.lower() not in METADATA or path.stat().st_size == 0:
            continue
        rows = read([path])
        if "file_name" not in rows.column_names:
            continue
        used.append(path)
        own = split_in(folder, path)
        where = path.relative_to(folder).as_posix()
        says = own != "train" or any(split_of(part) for part in path.relative_to(folder).parts[:-1])
        names = [str(name) for name in rows["file_name"]]
        splits = [own if says else split_of(Path(name).parts[0]) or own if name else own for name in names]
        for column in [name for name in rows.column_names if name == "file_name" or name.endswith("_file_name")]:
            rows, paths = located(rows, column, path.parent, where)
            used += paths
        for split in dict.fromkeys(splits):
            made[split].append(rows.select([i for i, other in enumerate(splits) if other == split]))
    if not made:
        return None
    from datasets import concatenate_datasets

    return {split: concatenate_datasets(parts) for split, parts in made.items()}, by_name(folder, used)


def located(rows: Any, column: str, folder: Path, where: str) -> tuple[Any, list[Path]]:
    """Rows whose `file_name` is the column image or audio, as paths; and these paths."""
    names = list(rows[column])
    paths = [folder / str(name).replace("\\", "/") for name in names]
    gone = [index for index, path in enumerate(paths) if not names[index] or not path.is_file()]
    if gone:
        near = sorted(path.name for path in paths[gone[0]].parent.iterdir()) if paths[gone[0]].parent.is_dir() else []
        raise DataError(
            f"{len(gone)} of {len(names)} rows name a file that is not there: {names[gone[0]]!r} in "
            f"{row_numbers(gone)}.", where=where,
            hint=f"A {column} is told from where the metadata lies. There: {listing(near, 4) or 'no such folder'}.",
        )
    role = one_kind(paths, folder) if column == "file_name" else column.removesuffix("_file_name")
    if role in rows.column_names:
        rows = rows.remove_columns(role)
    return rows.remove_columns(column).add_column(role, [str(path) for path in paths]), paths


# ------------------------------------------------------------------------------------------------ images and masks


def masked(folder: Path, media: Sequence[Path]) -> Made | None:
    """`split/images/x.jpg` with `split/masks/x.png`, or `images/split/x.jpg` with `masks/split/x.png`."""
    sides: dict[str, dict[tuple[str, ...], Path]] = {"image": {}, "mask": {}}
    for path in media:
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
    for one, other, said in ((masks, images, "masks have no image"), (images, masks, "images have no mask")):
        alone = sorted(set(one) - set(other))
        if alone:
            raise DataError(
                f"{len(alone)} of {len(one)} {said}: {listing([by_name(folder, [one[key]]).popitem()[0] for key in alone], 4)}.",
                where=folder.name, hint="An image and its mask have one name, such as images/a.jpg and masks/a.png.",
            )
    split = defaultdict(list)
    for key in sorted(images):
        split[next((s for part in key[:-1] if (s := split_of(part))), "train")].append(key)
    made = {name: rows_of({"image": [str(images[key]) for key in keys], "mask": [str(masks[key]) for key in keys]})
            for name, keys in split.items()}
    return made, by_name(folder, [*images.values(), *masks.values()])


# ------------------------------------------------------------------------------------------------ images and boxes


def boxed(folder: Path, files: Sequence[Path], media: Sequence[Path]) -> Made | None:
    """Images with boxes in COCO documents: `split/_annotations.coco.json`, or `annotations/instances_train.json`."""
    made: dict[str, Any] = {}
    used = list(media)
    for path in files:
        likely = re.search(r"coco|annotations|instances", f"{path.parent.name}/{path.name}".lower())
        document = coco.document(path) if path.suffix.lower() == ".json" and likely else None
        if document is None:
            continue
        split = split_in(folder, path)
        if split in made:
            raise DataError(f"the {split} split has two COCO documents, the second is {path.name}.", where=folder.name)
        made[split] = coco.rows(document, path, nearest(media, folder, split), split)
        used.append(path)
    return (made, by_name(folder, used)) if made else None


def nearest(media: Iterable[Path], folder: Path, split: str) -> list[Path]:
    """Files in the order in which a name without a folder means them: those of its split first."""
    return sorted(media, key=lambda path: split_in(folder, path) != split)


# ----------------------------------------------------------------------------------------------------- tagged words


def tagged_words(files: Mapping[Path, str]) -> Made | None:
    """Rows of tokens and tags from CoNLL files, given the split of each."""
    made: dict[str, dict[str, list[Any]]] = {}
    for path, split in files.items():
        columns = made.setdefault(split, {"tokens": [], "tags": []})
        for rows, found in zip(columns.values(), conll.sentences(path), strict=True):
            rows += found
    named = {f"{split}/{path.name}": path for path, split in files.items()}
    return ({split: rows_of(columns) for split, columns in made.items()}, named) if made else None

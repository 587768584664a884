"""Rows from folders of files: images and sounds by class or with metadata, images with masks, COCO, CoNLL.

Nothing is decoded here: the values of the columns image, audio and mask are paths.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hubtune.errors import DataError, listing
from hubtune.labels import row_numbers

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
CONLL = (".conll", ".bio", ".iob", ".iob2")
TAG = re.compile(r"O|[BIESLU]-\S+")

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
        made = coco(folder, files, media) or described(folder, files, read) or masked(folder, media)
        tables = [path for path in files if path.parent == folder and path.suffix.lower() in TABLES and split_of(path.stem)]
        return made or (None if tables else classes(folder, media))
    return tagged_words({path: split_in(folder, path) for path in files if is_conll(path)})


def load_file(path: Path) -> Made | None:
    """The rows of one file that is no table: an image or a sound, tagged words, a COCO document; or None."""
    column = column_of(path)
    if column:
        return {"train": rows_of({column: [str(path)]})}, {path.name: path}
    if path.suffix.lower() == ".json" and (document := coco_document(path)):
        around = path.parent.parent if path.parent.name.lower() in MASKS else path.parent
        media = [other for other in sorted(around.rglob("*")) if column_of(other) == "image"]
        return {"train": coco_rows(document, path, nearest(media, around, split_in(around, path)), "train")}, {path.name: path}
    return tagged_words({path: "train"}) if is_conll(path) else None


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


def rows_of(columns: Mapping[str, Sequence[Any]], features: Any = None) -> Any:
    """Columns as rows of `datasets`."""
    from datasets import Dataset

    return Dataset.from_dict(dict(columns), features=features)


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


# ------------------------------------------------------------------------------------------------------------ COCO


def coco(folder: Path, files: Sequence[Path], media: Sequence[Path]) -> Made | None:
    """Images with boxes in COCO documents: `split/_annotations.coco.json`, or `annotations/instances_train.json`."""
    made: dict[str, Any] = {}
    used = list(media)
    for path in files:
        likely = re.search(r"coco|annotations|instances", f"{path.parent.name}/{path.name}".lower())
        document = coco_document(path) if path.suffix.lower() == ".json" and likely else None
        if document is None:
            continue
        split = split_in(folder, path)
        if split in made:
            raise DataError(f"the {split} split has two COCO documents, the second is {path.name}.", where=folder.name)
        made[split] = coco_rows(document, path, nearest(media, folder, split), split)
        used.append(path)
    return (made, by_name(folder, used)) if made else None


def nearest(media: Iterable[Path], folder: Path, split: str) -> list[Path]:
    """Files in the order in which a name without a folder means them: those of its split first."""
    return sorted(media, key=lambda path: split_in(folder, path) != split)


def coco_document(path: Path) -> dict[str, Any] | None:
    """A json file as a COCO document, or None."""
    try:
        said = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return None
    keys = {"images", "annotations", "categories"}
    return said if isinstance(said, dict) and keys <= set(said) else None


def coco_rows(said: Mapping[str, Any], path: Path, media: Sequence[Path], split: str) -> Any:
    """A row per image: image, and objects as lists of id, bbox (x, y, width, height in pixels), category, area.

    Crowds, which are no single objects, are left out. media: the nearest files first, for names without a folder.
    """
    from datasets import Features, List, Value

    names = {category["id"]: str(category["name"]) for category in said["categories"]}
    where = {image["id"]: i for i, image in enumerate(said["images"])}
    for what, key, known in (("image", "image_id", where), ("category", "category_id", names)):
        odd = [note for note in said["annotations"] if note[key] not in known]
        if odd:
            raise DataError(f"{len(odd)} annotations name an unknown {what}: {key} {odd[0][key]} in annotation "
                            f"{odd[0].get('id')}. Known: {listing(known)}.", where=path.name)
    at: dict[str, Path] = {}
    for file in reversed(media):
        at[file.name] = file
    paths = [next((p for p in (path.parent / image["file_name"], path.parent.parent / image["file_name"]) if p.is_file()),
                  at.get(Path(image["file_name"]).name)) for image in said["images"]]
    gone = [index for index, found in enumerate(paths) if found is None]
    if gone:
        raise DataError(f"{len(gone)} of {len(paths)} images are not there, such as "
                        f"{said['images'][gone[0]]['file_name']!r}: {row_numbers(gone)} of {split}.", where=path.name)
    objects: list[dict[str, list[Any]]] = [{"id": [], "bbox": [], "category": [], "area": []} for _ in paths]
    for note in said["annotations"]:
        if not note.get("iscrowd"):
            found = objects[where[note["image_id"]]]
            box = [float(value) for value in note["bbox"]]
            values = (int(note.get("id", 0)), box, names[note["category_id"]], float(note.get("area", box[2] * box[3])))
            for column, value in zip(found.values(), values, strict=True):
                column.append(value)
    inner = {"id": List(Value("int64")), "bbox": List(List(Value("float64"))), "category": List(Value("string")),
             "area": List(Value("float64"))}
    return rows_of({"image": [str(found) for found in paths], "objects": objects},
                   Features({"image": Value("string"), "objects": inner}))


# ----------------------------------------------------------------------------------------------------- tagged words


def is_conll(path: Path) -> bool:
    """Whether a file holds a word and its tag in every line: by its name, or a .txt by its first lines."""
    if path.suffix.lower() in CONLL:
        return True
    if path.suffix.lower() != ".txt":
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        lines = [line.split() for _, line in zip(range(200), file) if line.strip()]
    return len(lines) > 1 and len({len(cells) for cells in lines}) == 1 and all(
        len(cells) > 1 and (TAG.fullmatch(cells[-1]) or cells[0] == "-DOCSTART-") for cells in lines)


def tagged_words(files: Mapping[Path, str]) -> Made | None:
    """Rows of tokens and tags from CoNLL files: a word's line holds it first and its tag last; a blank line ends a row."""
    made: dict[str, dict[str, list[Any]]] = {}
    for path, split in files.items():
        columns = made.setdefault(split, {"tokens": [], "tags": []})
        for rows, found in zip(columns.values(), sentences(path), strict=True):
            rows += found
    return ({split: rows_of(columns) for split, columns in made.items()}, {f"{split}/{path.name}": path for path, split in files.items()}) if made else None


def sentences(path: Path) -> tuple[list[list[str]], list[list[str]]]:
    """The words and the tags of every sentence of a CoNLL file."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"it is not UTF-8 ({error.reason}).", where=path.name,
                        hint=f"Convert it with: iconv -f LATIN1 -t UTF-8 {path.name} > utf8-{path.name}") from None
    separator = "\t" if sum("\t" in line for line in lines) > sum(bool(line.strip()) for line in lines) / 2 else None
    cells = [line.rstrip("\r\n").split(separator) if line.strip() else [] for line in lines]
    usual = Counter(len(line) for line in cells if line).most_common(1)
    width = usual[0][0] if usual else 0
    tokens: list[list[str]] = [[]]
    tags: list[list[str]] = [[]]
    for number, line in enumerate(cells, 1):
        if not line or line[0] == "-DOCSTART-":
            tokens.append([])
            tags.append([])
        elif len(line) == width > 1:
            tokens[-1].append(line[0])
            tags[-1].append(line[-1])
        elif not line[0].startswith("#"):  # a comment
            raise DataError(f"line {number} has {len(line)} columns, and the others {width}: {' '.join(line)[:60]!r}.",
                            where=path.name, hint="A line holds a word and, last, its tag; a blank line ends a sentence.")
    kept = [index for index, words in enumerate(tokens) if words]
    if not kept:
        raise DataError("there are no rows in it.", where=path.name)
    return [tokens[index] for index in kept], [tags[index] for index in kept]

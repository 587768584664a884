"""COCO documents (json files with the lists images, annotations, categories): images with boxes.

Format: https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hubtune.contract import DataFormat, FileData
from hubtune.data.files.text import open_text
from hubtune.data.formats.paths import by_relative_path, media_column, split_in_path
from hubtune.data.labels import row_numbers
from hubtune.errors import DataError, listing

ANNOTATION_FOLDERS = ("masks", "mask", "labels", "annotations", "segmentations", "labelmaps")
"""Names of folders that lie beside the folder of images."""


class Coco(DataFormat[Any]):
    """One COCO document; images lie beside it or its folder. `read_folder` reads folders."""

    contract = 2
    name = "coco"
    summary = "COCO documents: images with boxes"
    suffixes = (".json",)

    def matches(self, path: Path) -> bool:
        """Match a json file with the three lists of a COCO document."""
        return super().matches(path) and parse_document(path) is not None

    def read(self, paths: Sequence[Path]) -> FileData:
        """Read one document.

        Raises:
            DataError: several documents, or one that contradicts itself.
        """
        if len(paths) > 1:
            raise DataError(
                f"one split has several COCO documents: {listing(path.name for path in paths)}.")
        path, document = paths[0], parse_document(paths[0])
        named = path.parent.name.lower() in ANNOTATION_FOLDERS
        around = path.parent.parent if named else path.parent
        images = [other for other in sorted(around.rglob("*")) if media_column(other) == "image"]
        media = sort_by_split(images, around, split_in_path(around, path))
        return FileData({"train": build_rows(document or {}, path, media, "train")},
                        {path.name: path})


def read_folder(folder: Path, files: Sequence[Path]) -> FileData | None:
    """Read images with boxes; None without documents.

    Layouts: `split/_annotations.coco.json`, and `annotations/instances_train.json`.
    """
    made: dict[str, Any] = {}
    media = [path for path in files if media_column(path)]
    used = list(media)
    for path in files:
        likely = re.search(r"coco|annotations|instances", f"{path.parent.name}/{path.name}".lower())
        found = parse_document(path) if path.suffix.lower() == ".json" and likely else None
        if found is None:
            continue
        split = split_in_path(folder, path)
        if split in made:
            raise DataError(f"the {split} split has two COCO documents; the second is {path.name}.",
                            where=folder.name)
        made[split] = build_rows(found, path, sort_by_split(media, folder, split), split)
        used.append(path)
    return FileData(made, by_relative_path(folder, used)) if made else None


def sort_by_split(media: Iterable[Path], folder: Path, split: str) -> list[Path]:
    """Sort files so that a name without a folder resolves to a file of this split first."""
    return sorted(media, key=lambda path: split_in_path(folder, path) != split)


def parse_document(path: Path) -> dict[str, Any] | None:
    """Parse a json file as a COCO document; None if it is not one."""
    try:
        with open_text(path, lines=False) as file:
            start = file.read(1 << 16)
            if not start.lstrip("\ufeff \t\r\n").startswith("{"):
                return None
            document = json.loads(start + file.read())
    except (DataError, OSError, ValueError, RecursionError):
        return None
    keys = {"images", "annotations", "categories"}
    return document if isinstance(document, dict) and keys <= set(document) else None


def build_rows(document: Mapping[str, Any], path: Path, media: Sequence[Path], split: str) -> Any:
    """Build a row per image.

    Args:
        media: files that images without a folder may refer to, preferred ones first.

    Returns:
        A `datasets.Dataset` with the columns `image` (path) and `objects`: lists of id, bbox
        (x, y, width, height in pixels), category and area.

    Raises:
        DataError: the document contradicts itself or lacks a key, or an image is missing.
    """
    try:
        return build_checked_rows(document, path, media, split)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        missing = f"an entry has no {error}" if isinstance(error, KeyError) else str(error)[:120]
        raise DataError(
            f"it is not a COCO document: {missing}.", where=path.name,
            hint="Images have id and file_name; annotations id, image_id, category_id and bbox "
            "(x, y, width, height); categories id and name.") from error


def build_checked_rows(
    document: Mapping[str, Any], path: Path, media: Sequence[Path], split: str
) -> Any:
    """Build rows from a document whose lists hold what they should."""
    from datasets import Dataset, Features, List, Value

    names = {category["id"]: str(category["name"]) for category in document["categories"]}
    images = {image["id"] for image in document["images"]}
    for what, key, known in (("image", "image_id", images), ("category", "category_id", names)):
        odd = [note for note in document["annotations"] if note[key] not in known]
        if odd:
            raise DataError(
                f"{len(odd)} annotations name an unknown {what}: {key} {odd[0][key]} in annotation "
                f"{odd[0].get('id')}. Known: {listing(known)}.", where=path.name)
    columns = {"image": image_paths(document["images"], path, media, split),
               "objects": image_objects(document, names)}
    inner = {"id": List(Value("int64")), "bbox": List(List(Value("float64"))),
             "category": List(Value("string")), "area": List(Value("float64"))}
    return Dataset.from_dict(columns,
                             features=Features({"image": Value("string"), "objects": inner}))


def image_paths(
    images: Sequence[Mapping[str, Any]], path: Path, media: Sequence[Path], split: str
) -> list[str]:
    """Resolve image names from the document's folder, the folder above, or among `media`."""
    at = {file.name: file for file in reversed(media)}
    names = [Path(image["file_name"]) for image in images]
    found = []
    for name in names:
        candidates = (path.parent / name, path.parent.parent / name)
        found.append(next((file for file in candidates if file.is_file()), at.get(name.name)))
    gone = [index for index, file in enumerate(found) if file is None]
    if gone:
        raise DataError(
            f"{len(gone)} of {len(names)} images are missing, such as "
            f"{images[gone[0]]['file_name']!r}: {row_numbers(gone)} of {split}.", where=path.name)
    return [str(file) for file in found]


def image_objects(
    document: Mapping[str, Any], names: Mapping[Any, str]
) -> list[dict[str, list[Any]]]:
    """Return the objects of every image, without crowd annotations. names: of the categories."""
    objects: dict[Any, dict[str, list[Any]]] = {
        image["id"]: {"id": [], "bbox": [], "category": [], "area": []}
        for image in document["images"]}
    for note in document["annotations"]:
        if note.get("iscrowd"):
            continue
        box = [float(value) for value in note["bbox"]]
        values = {"id": int(note.get("id", 0)), "bbox": box, "category": names[note["category_id"]],
                  "area": float(note.get("area", box[2] * box[3]))}
        for key, column in objects[note["image_id"]].items():
            column.append(values[key])
    return [objects[image["id"]] for image in document["images"]]

"""Images with boxes from COCO documents: json files with the lists images, annotations and categories.

The format is that of https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hubtune.contract import DataFormat, FileData
from hubtune.data.formats.paths import by_relative_path, media_column, split_in_path
from hubtune.data.labels import row_numbers
from hubtune.errors import DataError, listing

ANNOTATION_FOLDERS = ("masks", "mask", "labels", "annotations", "segmentations", "labelmaps")
"""Names of folders that lie beside the folder of images."""


class Coco(DataFormat[Any]):
    """One COCO document; its images lie beside it or beside its folder. Folders are read with `read_folder`."""

    contract = 2
    name = "coco"
    summary = "COCO documents: images with boxes"
    suffixes = (".json",)

    def matches(self, path: Path) -> bool:
        """A json file with the three lists of a COCO document."""
        return super().matches(path) and document(path) is not None

    def read(self, paths: Sequence[Path]) -> FileData:
        """Read one document.

        Raises:
            DataError: there is more than one, or it contradicts itself.
        """
        if len(paths) > 1:
            raise DataError(f"one split has several COCO documents: {listing(path.name for path in paths)}.")
        path, found = paths[0], document(paths[0])
        around = path.parent.parent if path.parent.name.lower() in ANNOTATION_FOLDERS else path.parent
        images = [other for other in sorted(around.rglob("*")) if media_column(other) == "image"]
        return FileData({"train": rows(found or {}, path, nearest(images, around, split_in_path(around, path)), "train")}, {path.name: path})


def read_folder(folder: Path, files: Sequence[Path]) -> FileData | None:
    """Read images with boxes: `split/_annotations.coco.json`, or `annotations/instances_train.json`; None without documents."""
    made: dict[str, Any] = {}
    media = [path for path in files if media_column(path)]
    used = list(media)
    for path in files:
        likely = re.search(r"coco|annotations|instances", f"{path.parent.name}/{path.name}".lower())
        found = document(path) if path.suffix.lower() == ".json" and likely else None
        if found is None:
            continue
        split = split_in_path(folder, path)
        if split in made:
            raise DataError(f"the {split} split has two COCO documents, the second is {path.name}.", where=folder.name)
        made[split] = rows(found, path, nearest(media, folder, split), split)
        used.append(path)
    return FileData(made, by_relative_path(folder, used)) if made else None


def nearest(media: Iterable[Path], folder: Path, split: str) -> list[Path]:
    """Files in the order in which a name without a folder means them: those of its split first."""
    return sorted(media, key=lambda path: split_in_path(folder, path) != split)


def document(path: Path) -> dict[str, Any] | None:
    """A json file as a COCO document, or None."""
    try:
        said = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return None
    keys = {"images", "annotations", "categories"}
    return said if isinstance(said, dict) and keys <= set(said) else None


def rows(said: Mapping[str, Any], path: Path, media: Sequence[Path], split: str) -> Any:
    """A row per image: image, and objects as lists of id, bbox (x, y, width, height in pixels), category, area.

    media: the nearest files first, for names without a folder. Raises DataError where the document contradicts itself or an
    image is not there.
    """
    from datasets import Dataset, Features, List, Value

    names = {category["id"]: str(category["name"]) for category in said["categories"]}
    images = {image["id"] for image in said["images"]}
    for what, key, known in (("image", "image_id", images), ("category", "category_id", names)):
        odd = [note for note in said["annotations"] if note[key] not in known]
        if odd:
            raise DataError(f"{len(odd)} annotations name an unknown {what}: {key} {odd[0][key]} in annotation "
                            f"{odd[0].get('id')}. Known: {listing(known)}.", where=path.name)
    columns = {"image": paths_of(said["images"], path, media, split), "objects": objects_of(said, names)}
    inner = {"id": List(Value("int64")), "bbox": List(List(Value("float64"))), "category": List(Value("string")),
             "area": List(Value("float64"))}
    return Dataset.from_dict(columns, features=Features({"image": Value("string"), "objects": inner}))


def paths_of(images: Sequence[Mapping[str, Any]], path: Path, media: Sequence[Path], split: str) -> list[str]:
    """Where the images of a document are: as named from its folder or from the one above, else the nearest file of that name."""
    at = {file.name: file for file in reversed(media)}
    names = [Path(image["file_name"]) for image in images]
    found = [next((file for file in (path.parent / name, path.parent.parent / name) if file.is_file()), at.get(name.name))
             for name in names]
    gone = [index for index, file in enumerate(found) if file is None]
    if gone:
        raise DataError(f"{len(gone)} of {len(names)} images are not there, such as {images[gone[0]]['file_name']!r}: "
                        f"{row_numbers(gone)} of {split}.", where=path.name)
    return [str(file) for file in found]


def objects_of(said: Mapping[str, Any], names: Mapping[Any, str]) -> list[dict[str, list[Any]]]:
    """The objects of every image of a document, without crowds, which are no single objects. names: of the categories."""
    objects: dict[Any, dict[str, list[Any]]] = {
        image["id"]: {"id": [], "bbox": [], "category": [], "area": []} for image in said["images"]}
    for note in said["annotations"]:
        if note.get("iscrowd"):
            continue
        box = [float(value) for value in note["bbox"]]
        values = {"id": int(note.get("id", 0)), "bbox": box, "category": names[note["category_id"]],
                  "area": float(note.get("area", box[2] * box[3]))}
        for key, column in objects[note["image_id"]].items():
            column.append(values[key])
    return [objects[image["id"]] for image in said["images"]]

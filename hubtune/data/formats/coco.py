"""Images with boxes from COCO documents: json files with the lists images, annotations and categories.

The format is that of https://cocodataset.org/#format-data. Which document belongs to which split is for `folders`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hubtune.data.labels import row_numbers
from hubtune.errors import DataError, listing


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

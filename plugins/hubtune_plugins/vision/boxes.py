"""Boxes as data sets write them, as models learn them, and as they are answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from hubtune import Column, DataError, Rows, label_id, label_space, row_numbers

OBJECTS = Column("objects", ("objects", "annotations", "boxes", "bboxes", "detections"), kind="any", needed="train")
NOTHING = "no object"
"""Placeholder beside the categories where labels are counted, of which two are needed."""
KEYS = {"bbox": ("bbox", "bboxes", "box", "boxes"),
        "category": ("category", "categories", "label", "labels", "class", "category_id")}


def objects_of(value: Any) -> list[Any]:
    """(category, (x, y, width, height)) pairs, in pixels, of a dict of lists or of a list of dicts."""
    if isinstance(value, dict):
        names = {key: next((name for name in names if name in value), None) for key, names in KEYS.items()}
        if None in names.values():
            raise ValueError(f"it has {', '.join(value)}, and no bbox or no category")
        kinds, found = value[names["category"]], value[names["bbox"]]
        if len(kinds) != len(found):
            raise ValueError(f"it has {len(kinds)} categories and {len(found)} boxes")
        pairs = list(zip(kinds, found, strict=True))
    else:
        pairs = [pair for item in value or () for pair in objects_of({name: [it] for name, it in item.items()})]
    return [(str(kind), tuple(map(float, box))) for kind, box in pairs]


def checked(splits: Mapping[str, Rows], sizes: Any) -> Any:
    """The categories of every row by split; boxes that are none, or lie outside of their image, are refused."""
    raw: dict[str, Any] = {}
    for split, rows in splits.items():
        raw[split], bad = [], {}
        for index, (row, (height, width)) in enumerate(zip(rows, sizes[split], strict=True)):
            try:
                found = objects_of(row["objects"])
            except (ValueError, TypeError, AttributeError) as error:
                found, bad[index] = [], str(error)
            for _, box in found:
                x, y, w, h = box if len(box) == 4 else (0.0, 0.0, 0.0, 0.0)
                if not (w > 0 and h > 0 and x > -1 and y > -1 and x + w < width + 1 and y + h < height + 1):
                    bad[index] = f"the box {list(box)} in an image of {width} x {height}"
            raw[split].append([kind for kind, _ in found])
        if bad:
            raise DataError(f"{len(bad)} of {len(raw[split])} rows have boxes that cannot be: {row_numbers(list(bad), rows)} of "
                            f"{split}. The first: {next(iter(bad.values()))}.",
                            hint="A box is x, y, width, height in pixels of the image as it is shown, inside of it.")
    return raw


def counted(raw: Any) -> dict[str, Any]:
    """The label space of categories by split and row, and how often train has each."""
    labels = label_space({**raw, "train": [*raw["train"], [NOTHING]]})  # one class is enough to look for
    labels.remove(NOTHING)
    counts = Counter(label for row in raw["train"] for label in row)
    return {"labels": labels, "counts": {label: counts[label] for label in labels}}


def relative(value: Any, size: Any, config: Any) -> dict[str, Any]:
    """Objects as models learn them: `classes` as ids, and `boxes` as (centre x, centre y, width, height), in parts of the
    image's sides. Nothing of None. size: (height, width) in pixels."""
    if value is None:
        return {}
    height, width = size
    objects = objects_of(value)
    return {"classes": [label_id(kind, config) for kind, _ in objects],
            "boxes": [((x + w / 2) / width, (y + h / 2) / height, w / width, h / height) for _, (x, y, w, h) in objects]}


def as_answer(objects: Any) -> dict[str, Any]:
    """Objects as they would be answered, without doubt. A box is then left, top, right and bottom, in pixels."""
    return {"boxes": [{"label": kind, "score": 1.0, "box": [x, y, x + w, y + h]} for kind, (x, y, w, h) in objects]}

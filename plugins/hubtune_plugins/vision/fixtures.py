"""Test data of the tasks: small rows that a tiny model can learn, and the right answers.

Every function gives `count` rows by role, the same at every call. Images and masks are PNG files in
bytes, as a data set of the Hub holds them.
"""

from __future__ import annotations

from typing import Any

from hubtune import Base, Row
from hubtune.testing import TaskFixture
from hubtune_plugins.vision.boxes import as_answer, objects_of
from hubtune_plugins.vision.images import as_png
from hubtune_plugins.vision.masks import read_ids
from hubtune_plugins.vision.segmenters import answered


def in_one_colour(count: int) -> Any:
    """Images of one colour and a little, whose label is its name."""
    from PIL import Image

    colours, rows = {"red": (220, 40, 30), "green": (40, 200, 60), "blue": (30, 60, 230)}, []
    for index in range(count):
        name = list(colours)[index % 3]
        image = Image.new("RGB", (40 + index % 5, 36 + index % 3), tuple(value + index % 7 for value in colours[name]))
        rows.append({"image": {"bytes": as_png(image)}, "label": name})
    return rows


def with_boxes(count: int) -> Any:
    """Images with a red and a blue box on grey; objects: {"bbox": [[x, y, width, height]], "category": [name]}."""
    from PIL import Image

    colours, rows = {"red": (230, 30, 30), "blue": (30, 30, 230)}, []
    for index in range(count):
        image = Image.new("RGB", (64, 48 + 16 * (index % 2)), (200, 200, 200))
        objects: dict[str, list[Any]] = {"bbox": [], "category": []}
        for number, (name, colour) in enumerate(colours.items()):
            x, y, w, h = 4 + 32 * number + index % 5, 4 + 3 * index % 17, 16 + index % 3, 18 + index % 4
            image.paste(colour, (x, y, x + w, y + h))
            objects["bbox"].append([x, y, w, h])
            objects["category"].append(name)
        rows.append({"image": {"bytes": as_png(image)}, "objects": objects})
    return rows


def with_masks(count: int) -> Any:
    """Images with a red and a green box on blue; the mask holds 1 and 2 where they are, and 0 elsewhere."""
    from PIL import Image

    rows = []
    for index in range(count):
        size = (48 + index % 2 * 16, 40)
        image, mask = Image.new("RGB", size, (30, 40, 60)), Image.new("L", size, 0)
        for number, colour in ((1, (220, 60, 40)), (2, (60, 220, 80))):
            box = (2 + 22 * (number - 1), 4 + index % 7, 20 + 22 * (number - 1), 26 + index % 5)
            image.paste(colour, box)
            mask.paste(number, box)
        rows.append({"image": {"bytes": as_png(image)}, "mask": {"bytes": as_png(mask)}})
    return rows


class ImageLabels(TaskFixture):
    """Images of one colour, which is the label."""

    def sample(self, task: Any, count: int) -> Any:
        return in_one_colour(count)

    def gold(self, task: Any, row: Row, base: Base) -> Any:
        return task.kind.gold(row["label"], task.names, base.config)


class Boxes(TaskFixture):
    """Images with boxes of two colours."""

    def sample(self, task: Any, count: int) -> Any:
        return with_boxes(count)

    def gold(self, task: Any, row: Row, base: Base) -> Any:
        return as_answer(objects_of(row["objects"]))


class Masks(TaskFixture):
    """Images with a mask of three classes."""

    def sample(self, task: Any, count: int) -> Any:
        return with_masks(count)

    def gold(self, task: Any, row: Row, base: Base) -> Any:
        ids = read_ids(row["mask"], task.ids)
        return answered(ids.clip(min=0), base.config.label2id, ids)  # a pixel without a class is answered, too

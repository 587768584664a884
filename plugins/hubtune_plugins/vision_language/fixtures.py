"""Test data of the task: small rows that a tiny model can learn, and the right answers, the same at every call."""

from __future__ import annotations

from typing import Any

from hubtune import Base, Row
from hubtune.testing import TaskFixture
from hubtune_plugins.vision.images import as_png
from hubtune_plugins.writing.right_answers import certain

COLOURS = {"red": (220, 40, 30), "green": (40, 200, 60), "blue": (30, 60, 230), "white": (240, 240, 240)}


def asked(count: int) -> list[dict[str, Any]]:
    """Images of one colour and a question of one of two lengths, whose answer is its name."""
    from PIL import Image

    rows = []
    for index in range(count):
        name = list(COLOURS)[index % 4]
        image = Image.new("RGB", (40 + index % 5, 36 + index % 3), COLOURS[name])
        question = "Which colour?" if index % 3 else "Look at the picture: which colour has it?"
        rows.append({"image": {"bytes": as_png(image)}, "prompt": question, "completion": name})
    return rows


class Pictures(TaskFixture):
    """Images of one colour with a question and an answer."""

    def sample(self, task: Any, count: int) -> Any:
        return asked(count)

    def gold(self, task: Any, row: Row, base: Base) -> dict[str, Any]:
        return {**certain(task, row, base), "text": row["completion"]}

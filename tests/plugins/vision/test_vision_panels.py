"""Boxes on the page of a run."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("PIL")


def test_boxes_are_found_missed_and_invented_and_drawn_in_parts_of_the_image() -> None:
    import numpy as np
    from hubtune_plugins.vision import panels

    image = np.zeros((100, 200, 3), np.uint8)
    row = {"image": image, "objects": {"bbox": [[0, 0, 50, 50], [100, 0, 50, 50]], "category": ["cat", "dog"]}}
    prediction = {"boxes": [{"label": "cat", "score": 0.9, "box": [0, 0, 50, 45]},
                            {"label": "cat", "score": 0.8, "box": [0, 0, 50, 50]},
                            {"label": "dog", "score": 0.1, "box": [100, 0, 150, 50]}]}
    made: Any = panels.of_boxes([prediction], [row], [(100, 200)], 0.5)
    bars, rows = made
    assert bars.bars == {"found": {"cat": 1.0}, "missed": {"dog": 1.0}, "invented": {"cat": 1.0}}
    (shown,) = rows.rows
    assert shown.media.startswith("data:image/jpeg;base64,")
    assert [(box.left, box.top, box.width, box.height) for box in shown.boxes if box.right] == [
        (0.0, 0.0, 0.25, 0.5), (0.5, 0.0, 0.25, 0.5)]
    assert [box.label for box in shown.boxes if not box.right] == ["cat", "cat"]


def test_wrong_pixels_are_orange_and_counted() -> None:
    import base64
    import io

    import numpy as np
    from hubtune_plugins.vision import panels
    from hubtune_plugins.vision.segmenters import answered
    from PIL import Image

    gold = np.zeros((40, 60), np.int64)
    gold[:, 30:] = 1
    found = gold.copy()
    found[:20, 30:] = 0
    images = [{"image": np.zeros((40, 60, 3), np.uint8)}] * 2
    answers = [answered(gold, {"none": 0, "cell": 1}, gold), answered(found, {"none": 0, "cell": 1}, gold)]
    made: Any = panels.of_masks(answers, images, ["none", "cell"], lambda row: gold)
    matrix, rows = made
    assert set(matrix.cells) == {(0, 0, 2400), (1, 1, 1800), (1, 0, 600)}
    assert [(shown.row, shown.badness) for shown in rows.rows] == [(1, 0.25), (0, 0.0)]
    data = base64.b64decode(rows.rows[0].media.partition(",")[2])
    red, green, _ = Image.open(io.BytesIO(data)).convert("RGB").getpixel((45, 5))
    assert red > 2 * green - 80
    assert red > 100
    below = Image.open(io.BytesIO(data)).convert("RGB").getpixel((45, 35))
    assert below[1] > below[0]

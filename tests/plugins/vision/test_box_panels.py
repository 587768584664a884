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

"""Masks of a lossy format: numbers that the compression made are refused and are no classes."""

from __future__ import annotations

import io
from typing import Any

import pytest

pytest.importorskip("PIL")

from hubtune_plugins.vision.image_segmentation import ImageSegmentation
from PIL import Image, ImageDraw

from hubtune import DataError


def row(kind: str, values: tuple[int, ...] = (0, 100)) -> dict[str, Any]:
    mask = Image.new("L", (48, 48), values[0])
    for place, value in enumerate(values[1:]):
        ImageDraw.Draw(mask).ellipse((4 + 16 * place, 8, 20 + 16 * place, 39), fill=value)
    file = io.BytesIO()
    mask.save(file, kind)
    picture = io.BytesIO()
    Image.new("RGB", (48, 48), (9, 9, 9)).save(picture, "PNG")
    return {"image": {"bytes": picture.getvalue()}, "mask": {"bytes": file.getvalue()}}


def test_masks_as_jpeg_are_refused_with_their_numbers_and_rows() -> None:
    with pytest.raises(DataError, match=r"2 masks are JPEG images.* different ones .*: rows 2, 3 of train") as caught:
        ImageSegmentation().validate_data({"train": [row("PNG"), row("JPEG"), row("JPEG")]})
    assert "Save masks as PNG" in str(caught.value.hint)


@pytest.mark.parametrize("values", [(0, 100), (0, 1, 2)])
def test_masks_as_png_keep_their_classes(values: tuple[int, ...]) -> None:
    found = ImageSegmentation().validate_data({"train": [row("PNG", values)] * 2})
    assert found["ids"] == list(values)


def test_a_jpeg_of_two_flat_halves_is_taken_as_it_is() -> None:
    flat = io.BytesIO()
    mask = Image.new("L", (48, 48), 0)
    mask.paste(255, (0, 0, 24, 48))  # on a border of the blocks that JPEG compresses
    mask.save(flat, "JPEG")
    made = {**row("PNG"), "mask": {"bytes": flat.getvalue()}}
    found = ImageSegmentation().validate_data({"train": [made] * 2})
    assert found["labels"] == ["0", "255"]

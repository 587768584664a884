"""Shared by the vision tasks: images of any kind to RGB, RGB to tensors, and what an image costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hubtune import (
    Base,
    DataError,
    Example,
    ExampleRNG,
    ModelError,
    Rows,
    column_values,
    row_numbers,
)

SIDE = 16
"""Pixels of a side of a patch, which images are measured in."""
PATCHES = ("image_grid_thw", "spatial_shapes", "image_position_ids")
"""Outputs of processors that flatten images into patches."""
TURNED = (5, 6, 7, 8)
"""EXIF orientations of an image that lies on its side."""


def open_image(value: Any) -> Any:
    """A Pillow image of a path, bytes, a dict that has either, an array, or an image; its pixels are read later."""
    import io

    from PIL import Image

    if isinstance(value, dict):
        value = value["bytes"] if value.get("bytes") is not None else value.get("path")
    if isinstance(value, Image.Image):
        return value
    if isinstance(value, bytes):
        return Image.open(io.BytesIO(value))
    if hasattr(value, "__array__") or isinstance(value, list):
        import numpy as np

        return Image.fromarray(np.asarray(value, dtype=np.uint8))
    if not isinstance(value, str) and not hasattr(value, "__fspath__"):
        raise ValueError(f"{type(value).__name__} is no image")
    with open(value, "rb") as file:
        return Image.open(io.BytesIO(file.read()))


def as_png(image: Any) -> Any:
    """The bytes of a Pillow image as a PNG file."""
    import io

    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def name_of(value: Any, row: int | None = None) -> Any:
    """Return what to call an image in an error: its file, or its row (from 0)."""
    path = value.get("path") if isinstance(value, dict) else value
    if isinstance(path, str) or hasattr(path, "__fspath__"):
        return str(path).replace("\\", "/").rpartition("/")[2]
    return "an image" if row is None else row_numbers([row])


def reading(value: Any, row: int | None, read: Any) -> Any:
    """Return what `read` makes of an opened image; an image that cannot be read is refused by its name."""
    from PIL import Image

    try:
        return read(open_image(value))
    except (OSError, ValueError, TypeError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"the image cannot be read: {' '.join(str(error).split())[:200]}", where=name_of(value, row),
                        hint="Repair the file, or take its row out of the data.") from error


def load_rgb(value: Any, row: int | None = None) -> Any:
    """An image as RGB, turned as its EXIF says: grey, 16 bit, palette, CMYK or transparent ones too."""
    from PIL import ImageOps

    def read(image: Any) -> Any:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):  # 16 bit: Pillow would cut it off at 255
            image = image.point(lambda level: level / 256).convert("L")
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")
        return image.convert("RGB")

    return reading(value, row, read)


def load_ids(value: Any, row: int | None = None) -> Any:
    """A mask as an array of class ids, (height, width); palette images by their index."""
    import numpy as np

    ids = reading(value, row, np.asarray)
    if ids.ndim == 3 and all((ids[..., channel] == ids[..., 0]).all() for channel in range(min(3, ids.shape[2]))):
        ids = ids[..., 0]
    if ids.ndim != 2:
        raise DataError("the mask holds colours, not class ids.", where=name_of(value, row),
                        hint="A mask is a grey or palette image whose values are the numbers of the classes.")
    return ids.astype(np.int64)


def format_of(value: Any, row: int | None = None) -> str | None:
    """The format of an image's file, such as `JPEG`; None where it has no file."""
    return str(value.format) if getattr(value, "format", None) else reading(value, row, lambda image: image.format)


def size_of(value: Any, row: int | None = None) -> Any:
    """Height and width in pixels, as the image is looked at, without decoding it."""
    def read(image: Any) -> tuple[Any, Any]:
        width, height = image.size
        return (width, height) if image.getexif().get(0x0112) in TURNED else (height, width)

    return reading(value, row, read)


def sizes_of(splits: Mapping[str, Rows], column: Any = "image") -> Any:
    """The height and width of every image by split; the rows whose image cannot be read are refused."""
    sizes = {}
    for split, rows in splits.items():
        bad, found = {}, []
        for index, value in enumerate(column_values(rows, column)):
            try:
                found.append(size_of(value, index))
            except DataError as error:
                bad[index] = error
        if bad:
            first = next(iter(bad.values()))
            raise DataError(f"{len(bad)} of {len(rows)} values of {column} are no image that can be read: "
                            f"{row_numbers(list(bad), rows)} of {split}. {first.where}: {first.message}", hint=first.hint)
        sizes[split] = found
    return sizes


def blank(processor: Any, size: Any) -> Any:
    """Return the processor's output for a black image. size: its width and height."""
    from PIL import Image

    try:
        return processor(images=[Image.new("RGB", size)], return_tensors="pt")
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [""])[0].rstrip(".")
        raise ModelError(f"its image processor makes no pixels of a plain image: {type(error).__name__}: {reason}.",
                         hint="Something is missing from its preprocessor_config.json, or it makes what no model for images takes.") from error


def num_patches(processor: Any) -> int:
    """How many patches the processor makes of an image; 0 where it makes an image of each."""
    made = blank(processor, (96, 64))
    return 0 if not any(name in made for name in PATCHES) else made["pixel_values"].shape[-2 if made["pixel_values"].ndim < 4 else 0]


def grid(processor: Any) -> Any:
    """Height and width of what the processor makes of any image; None where they follow the image's own."""
    shapes = {tuple(blank(processor, size)["pixel_values"].shape[-2:]) for size in ((96, 64), (64, 96))}
    return shapes.pop() if len(shapes) == 1 else None


def fitted(processor: Any, crop: Any = True, pad: Any = False) -> tuple[Any, Any]:
    """The processor, and the `grid` of what it makes.

    Where sizes would differ, and the model takes no padding, or without `crop`: changed so that it stretches every whole
    image to one size.
    """
    same = grid(processor)
    if crop and (same or pad):
        return processor, same
    said, size = processor.to_dict(), dict(processor.size)
    side = size.get("height") or size.get("shortest_edge") or size.get("longest_edge") or size.get("max_height")
    height, width = same or (side, side)
    changes = {"do_center_crop": False, "do_pad": False, "keep_aspect_ratio": False, "crop_pct": 1.0, "pad_size": None}
    kept = {name: value for name, value in said.items() if name not in ("image_processor_type", "max_size")}
    made = type(processor)(**{**kept, **{name: value for name, value in changes.items() if name in said},
                              "do_resize": True, "size": {"height": height, "width": width}})
    return made, grid(made)


def patches(processor: Any, fixed: Any, size: Any) -> Any:
    """Return how many patches the processor makes of an image of a size. fixed: what `grid` said of the processor."""
    height, width = fixed or size
    if fixed is None:
        said = dict(processor.size)
        scale = said.get("shortest_edge", min(size)) / min(size)
        scale = min(scale, (said.get("longest_edge") or max(size) * scale) / max(size))
        height, width = height * scale, width * scale
    return max(1, round(height * width / SIDE**2))


def pixels(base: Base, images: Any) -> Any:
    """Return what the model takes of Pillow images, as tensors: `pixel_values` (images, channels, height, width), and a mask of
    padding where the processor makes one."""
    return dict(base.processor(images=images, return_tensors="pt"))


def decoded(
    examples: Sequence[Example], rngs: Sequence[ExampleRNG] | None, flip: Any
) -> tuple[Any, Any]:
    """The images of examples as RGB, and which of them are mirrored: with `flip` about half, as their draws fall."""
    from PIL import ImageOps

    flips = [flip and rngs is not None and rngs[i].random().random() < 0.5 for i in range(len(examples))]
    images = [load_rgb(example["image"], example["row"]) for example in examples]
    return [ImageOps.mirror(image) if back else image for image, back in zip(images, flips, strict=True)], flips

"""Base class of vision tasks, which read images through an image processor and measure them in patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hubtune import Base, Column, Example, ExampleRNG, Row, Task, UserCall, option
from hubtune_plugins.vision.images import decoded, load_rgb, patches, pixels, size_of

IMAGE = Column("image", ("image", "img", "picture", "photo", "pixel_values", "file_name"), kind="image")


@dataclass(frozen=True)
class ImageOptions:
    flip: bool = option(False, "show half of the images mirrored, anew in every epoch: where left and right are alike")


class ImageTask(Task[Any]):
    """A task on images. Examples hold `image` as the data has it, `row`, and `patches`."""

    contract = 2
    processor = "AutoImageProcessor"
    unit = "patches"
    requires: ClassVar[tuple[str, ...]] = ("PIL",)
    extra = "hubtune[vision]"

    def num_tokens(self, example: Example) -> int:
        return int(example["patches"])

    def user_call(self, row: Row, base: Base) -> UserCall | None:
        return UserCall("processor", {"images": load_rgb(row["image"])})

    def usage(self, repo: str, base: Base) -> str:
        return (f'from transformers import pipeline\n\npipe = pipeline("{self.pipeline_tag}", model="{repo}")\n'
                'print(pipe("image.png"))')


class PlaceTask(ImageTask):
    """A task whose answers are places in the image, in its own pixels: examples also hold its `num_tokens`, (height, width).

    `model_config` is to set `grid`: height and width of what the processor makes of any image, or None.
    """

    grid: Any

    def example(self, row: Row, index: Any, base: Base) -> dict[str, Any]:
        """An example of a row, without what is right."""
        size = size_of(row["image"], index)
        return {"image": row["image"], "row": index, "size": size, "patches": patches(base.processor, self.grid, size)}

    def inputs(
        self, examples: Sequence[Example], base: Base, rngs: Sequence[ExampleRNG] | None
    ) -> tuple[Any, Any]:
        """The inputs of a batch, with the `sizes` of its images; and which of these are mirrored."""
        images, flips = decoded(examples, rngs, self.options.flip)
        return {**pixels(base, images), "sizes": [example["size"] for example in examples]}, flips

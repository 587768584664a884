"""Image classification: one label per image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hubtune import (
    Base,
    Batch,
    Column,
    Example,
    ExampleRNG,
    ModelError,
    ModelSetup,
    Row,
    Rows,
    Task,
    UserCall,
    enumerate_rows,
    hookimpl,
)
from hubtune_plugins.classification.labelled import Labelled, LabelOptions
from hubtune_plugins.vision.base import IMAGE, ImageOptions, ImageTask
from hubtune_plugins.vision.images import decoded, fitted, load_rgb, num_patches, patches, pixels, sizes_of
from hubtune_plugins.vision.panels import thumbnail


@dataclass(frozen=True)
class ClassificationOptions(ImageOptions, LabelOptions):
    """Options of images and labels."""


class ImageClassification(Labelled, ImageTask):
    """One label per image."""

    name = "image-classification"
    summary = "a label for an image"
    model = "AutoModelForImageClassification"
    pipeline_tag = "image-classification"
    fixture = "hubtune_plugins.vision.fixtures:ImageLabels"
    Options = ClassificationOptions
    columns = (
        IMAGE,
        Column("label", ("label", "labels", "class", "category", "fine_label", "target", "y"), kind="label", needed="train"),
    )

    def validate_data(self, splits: Mapping[str, Rows]) -> dict[str, Any]:
        sizes_of(splits)
        return super().validate_data(splits)

    def model_config(self, dataset_info: Mapping[str, Any], base: Base) -> ModelSetup:
        processor, self.grid = base.processor, None
        self.patches = num_patches(processor)
        if not self.patches:
            processor, self.grid = fitted(processor)
        if not self.patches and self.grid is None:
            raise ModelError("its image processor keeps the sizes of images, so that those of a batch would differ.",
                             where=base.repo, hint="Set do_resize and a size in its preprocessor_config.json, or take another model.")
        return super().model_config(dataset_info, base) | ModelSetup(processor=processor)

    def encode(self, rows: Rows, base: Base) -> Iterable[Sequence[Example]]:
        cost = self.patches or patches(base.processor, self.grid, self.grid)
        for index, row in enumerate_rows(rows):
            yield [self.with_target({"image": row["image"], "row": index, "patches": cost}, row, base)]

    def collate(
        self, examples: Sequence[Example], base: Base, rngs: Sequence[ExampleRNG] | None
    ) -> Batch:
        return self.batch(pixels(base, decoded(examples, rngs, self.options.flip)[0]), examples)

    def media(self, row: Row) -> str | None:
        return thumbnail(row["image"])

    def user_call(self, row: Row, base: Base) -> UserCall | None:
        return UserCall("pipeline", load_rgb(row["image"]), {"top_k": base.config.num_labels})


@hookimpl
def hubtune_tasks() -> list[type[Task[Any]]]:
    return [ImageClassification]

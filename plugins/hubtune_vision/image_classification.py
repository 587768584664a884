"""Image classification: one label per image."""

from dataclasses import dataclass

from hubtune_labels.labelled import Labelled, LabelOptions

from hubtune import Column, Setup, hookimpl, option
from hubtune_vision.base import IMAGE, ImageTask
from hubtune_vision.images import as_png, decoded, fitted, patches, pixels, sizes_of


@dataclass(frozen=True)
class ClassificationOptions(LabelOptions):
    flip: bool = option(False, "show half of the images mirrored, anew in every epoch: where left and right are alike")


class ImageClassification(Labelled, ImageTask):
    """One label per image."""

    name = "image-classification"
    summary = "a label for an image"
    model = "AutoModelForImageClassification"
    pipeline_tag = "image-classification"
    Options = ClassificationOptions
    columns = (
        IMAGE,
        Column("label", ("label", "labels", "class", "category", "fine_label", "target", "y"), kind="label", needed="train"),
    )

    def inspect(self, splits):
        sizes_of(splits)
        return super().inspect(splits)

    def configure(self, facts, base):
        processor, self.grid = fitted(base.processor)
        return Setup(super().configure(facts, base).config, processor)

    def encode(self, rows, base):
        cost = patches(base.processor, self.grid, self.grid)
        for index, row in enumerate(rows):
            yield [self.with_target({"image": row["image"], "row": index, "patches": cost}, row, base)]

    def collate(self, examples, base, draws):
        return self.batch(pixels(base, decoded(examples, draws, self.options.flip)[0]), examples)

    def sample(self, count):
        from PIL import Image

        colours, rows = {"red": (220, 40, 30), "green": (40, 200, 60), "blue": (30, 60, 230)}, []
        for index in range(count):
            name = list(colours)[index % 3]
            image = Image.new("RGB", (40 + index % 5, 36 + index % 3), tuple(value + index % 7 for value in colours[name]))
            rows.append({"image": {"bytes": as_png(image)}, "label": name})
        return rows


@hookimpl
def hubtune_tasks():
    return [ImageClassification]

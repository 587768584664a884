"""Object detection: boxes with labels in an image, by DETR-like models (YOLOS, RT-DETR, D-FINE, Deformable DETR)."""

from dataclasses import dataclass

from hubtune import Batch, Metric, ModelSetup, enumerate_rows, hookimpl, label_config, option
from hubtune_plugins.vision.base import IMAGE, ImageOptions, PlaceTask
from hubtune_plugins.vision.boxes import OBJECTS, checked, counted, relative
from hubtune_plugins.vision.detectors import best, normaliser, reads_mask, sums, targets_of, with_loss
from hubtune_plugins.vision.images import fitted, sizes_of
from hubtune_plugins.vision.scores import average_precision


@dataclass(frozen=True)
class DetectionOptions(ImageOptions):
    threshold: float = option(0.5, "the score from which on a box is shown")


class ObjectDetection(PlaceTask):
    """Boxes with labels; the loss is the model's own, with Hungarian matching (Carion et al., DETR, arXiv:2005.12872)."""

    name = "object-detection"
    summary = "boxes with labels in an image"
    model = "AutoModelForObjectDetection"
    pipeline_tag = "object-detection"
    fixture = "hubtune_plugins.vision.fixtures:Boxes"
    metric = Metric("map")
    bootstrap_samples = 0
    requires = ("PIL", "pycocotools")
    Options = DetectionOptions
    columns = (IMAGE, OBJECTS)

    def validate_data(self, splits):
        return counted(checked(splits, sizes_of(splits)))

    def model_config(self, dataset_info, base):
        masked = reads_mask(self.model, base.config)  # without a mask, a model would see the padding
        processor, self.grid = fitted(base.processor, pad=masked)
        return ModelSetup(label_config(dataset_info.get("labels"), base.config), processor)

    def encode(self, rows, base):
        for index, row in enumerate_rows(rows):
            example = self.example(row, index, base)
            yield [example | relative(row.get("objects"), example["size"], base.config)]

    def collate(self, examples, base, rngs):
        inputs, flips = self.inputs(examples, base, rngs)
        labels = targets_of(examples, flips)
        counts = {} if labels is None else normaliser(base.config, [len(one["class_labels"]) for one in labels])
        return Batch(inputs, labels, len(examples), counts)

    def forward(self, model, batch):
        """The model's output; with the model's loss where the rows have boxes."""
        return super().forward(model, batch) if batch.targets is None else with_loss(model, batch)

    def loss(self, outputs, batch):
        return sums(outputs, batch.targets, batch.counts)

    def postprocess(self, outputs, batch, base):
        return best(outputs, batch.inputs["sizes"], base)

    def show(self, prediction):
        return {**prediction, "boxes": [one for one in prediction["boxes"] if one["score"] >= self.options.threshold]}

    def score(self, predictions, rows, base):
        return average_precision(predictions, rows, base.config)[0]

    def report(self, predictions, rows, base):
        return {"map": average_precision(predictions, rows, base.config)[1]}


@hookimpl
def hubtune_tasks():
    return [ObjectDetection]

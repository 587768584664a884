"""Object detection: boxes with labels in an image, by DETR-like models (YOLOS, RT-DETR, D-FINE, Deformable DETR)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hubtune import (
    Base,
    Batch,
    Example,
    ExampleRNG,
    Loss,
    Metric,
    ModelSetup,
    Panel,
    Prediction,
    Rows,
    Task,
    enumerate_rows,
    hookimpl,
    label_config,
    option,
)
from hubtune_plugins.vision import panels
from hubtune_plugins.vision.base import IMAGE, ImageOptions, PlaceTask
from hubtune_plugins.vision.boxes import OBJECTS, checked, counted, relative
from hubtune_plugins.vision.detectors import best, normaliser, reads_mask, sums, targets_of, with_loss
from hubtune_plugins.vision.images import fitted, size_of, sizes_of
from hubtune_plugins.vision.scores import average_precision

if TYPE_CHECKING:
    from torch.nn import Module


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

    def validate_data(self, splits: Mapping[str, Rows]) -> dict[str, Any]:
        return counted(checked(splits, sizes_of(splits)))

    def model_config(self, dataset_info: Mapping[str, Any], base: Base) -> ModelSetup:
        masked = reads_mask(self.model, base.config)  # without a mask, a model would see the padding
        processor, self.grid = fitted(base.processor, pad=masked)
        return ModelSetup(label_config(dataset_info.get("labels"), base.config), processor)

    def encode(self, rows: Rows, base: Base) -> Iterable[Sequence[Example]]:
        for index, row in enumerate_rows(rows):
            example = self.example(row, index, base)
            yield [example | relative(row.get("objects"), example["size"], base.config)]

    def collate(
        self, examples: Sequence[Example], base: Base, rngs: Sequence[ExampleRNG] | None
    ) -> Batch:
        inputs, flips = self.inputs(examples, base, rngs)
        labels = targets_of(examples, flips)
        counts = {} if labels is None else normaliser(base.config, [len(one["class_labels"]) for one in labels])
        return Batch(inputs, labels, len(examples), counts)

    def forward(self, model: Module, batch: Batch) -> Any:
        """The model's output; with the model's loss where the rows have boxes."""
        return super().forward(model, batch) if batch.targets is None else with_loss(model, batch)

    def loss(self, outputs: Any, batch: Batch) -> Loss | list[Loss]:
        return sums(outputs, batch.targets, batch.counts)

    def postprocess(self, outputs: Any, batch: Batch, base: Base) -> list[Prediction]:
        return best(outputs, batch.inputs["sizes"], base)

    def show(self, prediction: Prediction) -> Prediction:
        return {**prediction, "boxes": [one for one in prediction["boxes"] if one["score"] >= self.options.threshold]}

    def score(self, predictions: Sequence[Prediction], rows: Rows, base: Base) -> dict[str, float]:
        return average_precision(predictions, rows, base.config)[0]

    def panels(self, predictions: Sequence[Prediction], rows: Rows, base: Base) -> Sequence[Panel]:
        sizes = [size_of(row["image"]) for row in rows]
        return panels.of_boxes(predictions, rows, sizes, self.options.threshold)

    def report(self, predictions: Sequence[Prediction], rows: Rows, base: Base) -> dict[str, Any]:
        return {"map": average_precision(predictions, rows, base.config)[1]}


@hookimpl
def hubtune_tasks() -> list[type[Task[Any]]]:
    return [ObjectDetection]

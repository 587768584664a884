"""Semantic segmentation: the class of every pixel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
from hubtune_plugins.vision.images import fitted
from hubtune_plugins.vision.masks import MASK, id_by_number, ids_of, named, read_ids
from hubtune_plugins.vision.scores import overlaps, pixel_scores
from hubtune_plugins.vision.segmenters import answers, known, pixel_loss, targets_of


@dataclass(frozen=True)
class SegmentationOptions(ImageOptions):
    labels: list[str] = option([], "names of the classes 0, 1, 2 ...; empty: their numbers")
    ignore: int = option(255, "the value of pixels that have no class")


class ImageSegmentation(PlaceTask):
    """A class for every pixel, learnt from masks that hold the number of a class at each pixel."""

    name = "image-segmentation"
    summary = "the class of every pixel of an image"
    model = "AutoModelForSemanticSegmentation"
    pipeline_tag = "image-segmentation"
    fixture = "hubtune_plugins.vision.fixtures:Masks"
    metric = Metric("mean_iou")
    Options = SegmentationOptions
    columns = (IMAGE, MASK)

    def validate_data(self, splits: Mapping[str, Rows]) -> dict[str, Any]:
        return named(ids_of(splits, self.options.ignore), list(self.options.labels))

    def model_config(self, dataset_info: Mapping[str, Any], base: Base) -> ModelSetup:
        processor, self.grid = fitted(base.processor, crop=False)
        if hasattr(processor, "do_reduce_labels"):
            processor.do_reduce_labels = False  # classes begin at 0
        extras = label_config(dataset_info.get("labels"), base.config)
        self.ids = id_by_number(dataset_info, extras["label2id"])
        return ModelSetup(extras, processor)

    def encode(self, rows: Rows, base: Base) -> Iterable[Sequence[Example]]:
        for index, row in enumerate_rows(rows):
            mask = {"mask": row["mask"]} if row.get("mask") is not None else {}
            yield [self.example(row, index, base) | mask]

    def collate(
        self, examples: Sequence[Example], base: Base, rngs: Sequence[ExampleRNG] | None
    ) -> Batch:
        inputs, flips = self.inputs(examples, base, rngs)
        targets = targets_of(examples, flips, self.ids, self.grid, whole=not rngs)
        counts = {} if targets is None else {"loss": float(known(targets["small"]).sum())}
        return Batch(inputs, targets, len(examples), counts)

    def loss(self, outputs: Any, batch: Batch) -> Loss | list[Loss]:
        return Loss(pixel_loss(outputs.logits, batch.targets["small"]))

    def postprocess(self, outputs: Any, batch: Batch, base: Base) -> list[Prediction]:
        masks = None if batch.targets is None else batch.targets["masks"]
        return answers(outputs.logits, batch.inputs["sizes"], base.config.label2id, masks)

    def show(self, prediction: Prediction) -> Prediction:
        return {name: value for name, value in prediction.items() if name != "counts"}

    def score(self, predictions: Sequence[Prediction], rows: Rows, base: Base) -> dict[str, float]:
        return pixel_scores(predictions)

    def panels(self, predictions: Sequence[Prediction], rows: Rows, base: Base) -> Sequence[Panel]:
        return panels.of_masks(predictions, rows, list(base.config.label2id), lambda row: read_ids(rows[row]["mask"], self.ids, row))

    def report(self, predictions: Sequence[Prediction], rows: Rows, base: Base) -> dict[str, Any]:
        return {"iou": {base.config.id2label[index]: value for index, value in overlaps(predictions).items()}}


@hookimpl
def hubtune_tasks() -> list[type[Task[Any]]]:
    return [ImageSegmentation]

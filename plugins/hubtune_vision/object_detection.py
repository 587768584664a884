"""Object detection: boxes with labels in an image, by DETR-like models (YOLOS, RT-DETR, D-FINE, Deformable DETR)."""

from collections import Counter
from dataclasses import dataclass

from hubtune import Batch, Column, Loss, Metric, Setup, hookimpl, label_config, label_id, label_space, option
from hubtune_vision.base import IMAGE, ImageTask
from hubtune_vision.boxes import as_one_process, checked, normaliser, objects_of
from hubtune_vision.images import as_png, decoded, fitted, patches, pixels, size_of, sizes_of
from hubtune_vision.scores import box_scores

NOTHING = "no object"
MOST, LEAST = 100, 0.001
"""Of every image, the best answers that COCO's metric looks at, and the score from which on they count."""


@dataclass(frozen=True)
class DetectionOptions:
    threshold: float = option(0.5, "the score from which on a box is shown")
    flip: bool = option(False, "show half of the images mirrored, anew in every epoch: where left and right are alike")


class ObjectDetection(ImageTask):
    """Boxes with labels; the loss is the model's own, with Hungarian matching (Carion et al., DETR, arXiv:2005.12872)."""

    name = "object-detection"
    summary = "boxes with labels in an image"
    model = "AutoModelForObjectDetection"
    pipeline_tag = "object-detection"
    metric = Metric("map")
    resamples = 0
    needs = ("PIL", "pycocotools")
    Options = DetectionOptions
    columns = (
        IMAGE,
        Column("objects", ("objects", "annotations", "boxes", "bboxes", "detections"), kind="any", needed="train"),
    )

    def inspect(self, splits):
        raw = checked(splits, sizes_of(splits))
        labels = label_space({**raw, "train": [*raw["train"], [NOTHING]]})  # one class is enough to look for
        labels.remove(NOTHING)
        counts = Counter(label for row in raw["train"] for label in row)
        return {"labels": labels, "counts": {label: counts[label] for label in labels}}

    def configure(self, facts, base):
        import inspect

        import transformers

        made = getattr(transformers, self.model)._model_mapping[type(base.config)]
        masked = "pixel_mask" in inspect.signature(made.forward).parameters
        processor, self.grid = fitted(base.processor, pad=masked)  # without a mask, a model would see the padding
        return Setup(label_config(facts.get("labels"), base.config), processor)

    def encode(self, rows, base):
        for index, row in enumerate(rows):
            height, width = size_of(row["image"], index)
            example = {"image": row["image"], "row": index, "height": height, "width": width,
                       "patches": patches(base.processor, self.grid, (height, width))}
            if row.get("objects") is not None:
                found = objects_of(row["objects"])
                example["classes"] = [label_id(kind, base.config) for kind, _ in found]
                example["boxes"] = [((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
                                    for _, (x, y, w, h) in found]
            yield [example]

    def collate(self, examples, base, draws):
        import torch

        images, flips = decoded(examples, draws, self.options.flip)
        inputs = pixels(base, images)
        inputs["sizes"] = [(example["height"], example["width"]) for example in examples]
        if not all("boxes" in example for example in examples):
            return Batch(inputs, None, len(examples))
        labels = [{"class_labels": torch.tensor(e["classes"], dtype=torch.int64),
                   "boxes": torch.tensor([(1 - x if flip else x, y, w, h) for x, y, w, h in e["boxes"]]).reshape(-1, 4)}
                  for e, flip in zip(examples, flips, strict=True)]
        return Batch(inputs, {"labels": labels, "by": normaliser(base.config, [len(e["classes"]) for e in examples])},
                     len(examples))

    def count(self, batch):
        return dict(batch.targets["by"])

    def forward(self, model, batch):
        """The model's output; with the model's loss where the rows have boxes."""
        if batch.targets is None:
            return super().forward(model, batch)
        with as_one_process(model):
            inputs = {name: value for name, value in batch.inputs.items() if name != "sizes"}
            return model(**inputs, labels=batch.targets["labels"])

    def loss(self, outputs, batch):
        """The terms as sums: the model's own means, times what it divided them by."""
        by = batch.targets["by"]
        counts = [len(one["class_labels"]) for one in batch.targets["labels"]]
        objects = float(max(1, sum(counts)))  # what the model divides by
        if "classes" not in by:
            return [Loss(outputs.loss * objects, by["boxes"], "boxes")]
        classes = sum(term for name, term in outputs.loss_dict.items() if name.startswith("loss_ce"))
        return [Loss((outputs.loss - classes) * objects, by["boxes"], "boxes"),
                Loss(classes * by["classes"], by["classes"], "classes")]

    def judge(self, outputs, batch, base):
        import torch

        sizes = torch.tensor(batch.inputs["sizes"], device=outputs.logits.device)
        found = base.processor.post_process_object_detection(outputs, threshold=LEAST, target_sizes=sizes)
        predictions = []
        for one in found:
            best = one["scores"].argsort(descending=True)[:MOST]
            rows = zip(one["labels"][best].tolist(), one["scores"][best].tolist(), one["boxes"][best].tolist(), strict=True)
            predictions.append({"boxes": [{"label": base.config.id2label[kind], "score": score, "box": box}
                                          for kind, score, box in rows]})
        return predictions

    def show(self, prediction):
        return {**prediction, "boxes": [one for one in prediction["boxes"] if one["score"] >= self.options.threshold]}

    def average_precision(self, predictions, rows, base):
        gold = [[(label_id(kind, base.config), 1.0, box) for kind, box in objects_of(row["objects"])] for row in rows]
        found = [[(label_id(one["label"], base.config), one["score"], (x, y, right - x, bottom - y))
                  for one in prediction["boxes"] for x, y, right, bottom in [one["box"]]] for prediction in predictions]
        return box_scores(gold, found, list(base.config.label2id))

    def score(self, predictions, rows, base):
        return self.average_precision(predictions, rows, base)[0]

    def report(self, predictions, rows, base):
        return {"map": self.average_precision(predictions, rows, base)[1]}

    def sample(self, count):
        from PIL import Image

        colours, rows = {"red": (230, 30, 30), "blue": (30, 30, 230)}, []
        for index in range(count):
            image, objects = Image.new("RGB", (64, 48 + 16 * (index % 2)), (200, 200, 200)), {"bbox": [], "category": []}
            for number, (name, colour) in enumerate(colours.items()):
                x, y, w, h = 4 + 32 * number + index % 5, 4 + 3 * index % 17, 16 + index % 3, 18 + index % 4
                image.paste(colour, (x, y, x + w, y + h))
                objects["bbox"].append([x, y, w, h])
                objects["category"].append(name)
            rows.append({"image": {"bytes": as_png(image)}, "objects": objects})
        return rows

    def gold(self, row, base):
        return {"boxes": [{"label": kind, "score": 1.0, "box": [x, y, x + w, y + h]}
                          for kind, (x, y, w, h) in objects_of(row["objects"])]}


@hookimpl
def hubtune_tasks():
    return [ObjectDetection]

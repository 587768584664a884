"""Semantic segmentation: the class of every pixel."""

from dataclasses import dataclass

from hubtune import Batch, Column, DataError, Loss, Metric, Setup, exact, hookimpl, label_config, option
from hubtune_vision.base import IMAGE, ImageTask
from hubtune_vision.images import as_png, decoded, fitted, patches, pixels, size_of
from hubtune_vision.masks import IGNORED, counted, ids_of, read_ids, written
from hubtune_vision.scores import overlaps, pixel_scores


@dataclass(frozen=True)
class SegmentationOptions:
    labels: list[str] = option([], "names of the classes 0, 1, 2 ...; empty: their numbers")
    ignore: int = option(255, "the value of pixels that have no class")
    flip: bool = option(False, "show half of the images mirrored, anew in every epoch: where left and right are alike")


class ImageSegmentation(ImageTask):
    """A class for every pixel, learnt from masks that hold the number of a class at each pixel."""

    name = "image-segmentation"
    summary = "the class of every pixel of an image"
    model = "AutoModelForSemanticSegmentation"
    pipeline_tag = "image-segmentation"
    metric = Metric("mean_iou")
    Options = SegmentationOptions
    columns = (
        IMAGE,
        Column("mask", ("mask", "label", "labels", "annotation", "annotations", "segmentation_mask", "semantic_mask"),
               kind="image", needed="train"),
    )

    def inspect(self, splits):
        ids = ids_of(splits, self.options.ignore)
        names = list(self.options.labels)
        if names and max(ids) >= len(names) and len(ids) != len(names):
            raise DataError(f"the masks hold the classes {ids}, and task.labels names {len(names)}: {names}.",
                            hint="Name every class from 0 on: --set 'task.labels=[\"background\", ...]'")
        if names and max(ids) < len(names):
            ids = list(range(len(names)))
        return {"ids": ids, "labels": names or [str(number) for number in ids]}

    def configure(self, facts, base):
        names = facts.get("labels")
        processor, self.grid = fitted(base.processor, crop=False)
        if hasattr(processor, "do_reduce_labels"):
            processor.do_reduce_labels = False  # classes begin at 0
        extras = label_config(names, base.config)
        order = list(extras["label2id"])
        self.ids = dict(zip(facts["ids"], map(order.index, names), strict=True)) if names else {i: i for i in range(len(order))}
        return Setup(extras, processor)

    def encode(self, rows, base):
        for index, row in enumerate(rows):
            example = {"image": row["image"], "row": index, "size": size_of(row["image"], index),
                       "patches": patches(base.processor, self.grid, self.grid)}
            if row.get("mask") is not None:
                example["mask"] = row["mask"]
            yield [example]

    def collate(self, examples, base, draws):
        import torch

        images, flips = decoded(examples, draws, self.options.flip)
        inputs = pixels(base, images)
        inputs["sizes"] = [example["size"] for example in examples]
        if not all("mask" in example for example in examples):
            return Batch(inputs, None, len(examples))
        masks = [torch.from_numpy(read_ids(e["mask"], self.ids, e["row"])) for e in examples]
        small = [torch.nn.functional.interpolate(mask[None, None].double(), self.grid, mode="nearest-exact")[0, 0].long()
                 for mask in (mask.flip(-1) if flip else mask for mask, flip in zip(masks, flips, strict=True))]
        return Batch(inputs, {"small": torch.stack(small), "masks": [] if draws else masks}, len(examples))

    def count(self, batch):
        return {"loss": float((batch.targets["small"] != IGNORED).sum())}

    def loss(self, outputs, batch):
        from torch.nn import functional as F

        targets = batch.targets["small"]
        logits = F.interpolate(exact(outputs.logits), targets.shape[-2:], mode="bilinear", align_corners=False)
        total = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
        return Loss(total, self.count(batch)["loss"])

    def judge(self, outputs, batch, base):
        from torch.nn import functional as F

        predictions = []
        for index, size in enumerate(batch.inputs["sizes"]):
            logits = exact(outputs.logits[index : index + 1])
            found = F.interpolate(logits, tuple(size), mode="bilinear", align_corners=False)[0].argmax(0).cpu().numpy()
            prediction = self.prediction(found, base)
            if batch.targets is not None:
                prediction["counts"] = counted(batch.targets["masks"][index].cpu().numpy(), found)
            predictions.append(prediction)
        return predictions

    def prediction(self, found, base):
        """The mask as PNG in base64, whose values are `label2id`'s, and the share of pixels by label, largest first."""
        shares = sorted(((float((found == index).mean()), name) for name, index in base.config.label2id.items()), reverse=True)
        return {"labels": {name: share for share, name in shares if share}, "mask": written(found)}

    def show(self, prediction):
        return {name: value for name, value in prediction.items() if name != "counts"}

    def score(self, predictions, rows, base):
        return pixel_scores([count for prediction in predictions for count in prediction["counts"]])

    def report(self, predictions, rows, base):
        each = overlaps([count for prediction in predictions for count in prediction["counts"]])
        return {"iou": {base.config.id2label[index]: value for index, value in each.items()}}

    def sample(self, count):
        from PIL import Image

        rows = []
        for index in range(count):
            image, mask = Image.new("RGB", (48 + index % 2 * 16, 40), (30, 40, 60)), Image.new("L", (48 + index % 2 * 16, 40), 0)
            for number, colour in ((1, (220, 60, 40)), (2, (60, 220, 80))):
                box = (2 + 22 * (number - 1), 4 + index % 7, 20 + 22 * (number - 1), 26 + index % 5)
                image.paste(colour, box)
                mask.paste(number, box)
            rows.append({"image": {"bytes": as_png(image)}, "mask": {"bytes": as_png(mask)}})
        return rows

    def gold(self, row, base):
        ids = read_ids(row["mask"], self.ids)
        best = ids.copy()
        best[best == IGNORED] = 0
        return {**self.prediction(best, base), "counts": counted(ids, best)}


@hookimpl
def hubtune_tasks():
    return [ImageSegmentation]

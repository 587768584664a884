"""Image classification: one label per image."""

from collections import Counter
from dataclasses import dataclass

from hubtune import Batch, Column, Loss, Metric, Setup, hookimpl, label_space, option
from hubtune_vision.base import IMAGE, ImageTask, class_names, known_id
from hubtune_vision.images import as_png, decoded, exact, fitted, patches, pixels, sizes_of
from hubtune_vision.scores import class_scores, class_table


@dataclass(frozen=True)
class ClassificationOptions:
    flip: bool = option(False, "show half of the images mirrored, anew in every epoch: where left and right are alike")
    class_weights: str = option("none", "balanced: rare labels weigh more in the loss", choices=("none", "balanced"))
    metric: str = option("accuracy", "what decides which weights are best", choices=("accuracy", "f1_macro"))


class ImageClassification(ImageTask):
    """One label per image."""

    name = "image-classification"
    summary = "a label for an image"
    model = "AutoModelForImageClassification"
    pipeline_tag = "image-classification"
    metric = Metric("accuracy")
    Options = ClassificationOptions
    columns = (
        IMAGE,
        Column("label", ("label", "labels", "class", "category", "fine_label", "target", "y"), kind="label", needed="train"),
    )

    def inspect(self, splits):
        sizes_of(splits)
        raw = {split: [[str(row["label"])] for row in rows] for split, rows in splits.items()}
        labels = label_space(raw)
        counts = Counter(label for (label,) in raw["train"])
        return {"labels": labels, "counts": {label: counts[label] for label in labels}}

    def configure(self, facts, base):
        names = class_names(facts.get("labels"), base)
        self.weights = None
        if self.options.class_weights == "balanced" and facts.get("counts"):
            counts = [facts["counts"][name] for name in names["label2id"]]
            self.weights = [sum(counts) / (len(counts) * count) for count in counts]
        processor, self.grid = fitted(base.processor)
        return Setup({**names, "problem_type": "single_label_classification"}, processor)

    def metric_of(self, base):
        return Metric(self.options.metric)

    def encode(self, rows, base):
        for index, row in enumerate(rows):
            example = {"image": row["image"], "row": index, "patches": patches(base.processor, self.grid, self.grid)}
            if row.get("label") is not None:
                example["target"] = known_id(str(row["label"]), base)
            yield [example]

    def collate(self, examples, base, draws):
        import torch

        images, _ = decoded(examples, draws, self.options.flip)
        known = all("target" in example for example in examples)
        targets = torch.tensor([example["target"] for example in examples]) if known else None
        return Batch(pixels(base, images), targets, len(examples))

    def weights_of(self, targets):
        """The weight of each image: of its label, where labels are weighted."""
        return [1.0] * len(targets) if self.weights is None else [self.weights[target] for target in targets.tolist()]

    def count(self, batch):
        return {"loss": sum(self.weights_of(batch.targets))}

    def loss(self, outputs, batch):
        from torch.nn import functional as F

        logits, weights = exact(outputs.logits), self.weights_of(batch.targets)
        each = F.cross_entropy(logits, batch.targets, reduction="none")
        return Loss((each * each.new_tensor(weights)).sum(), sum(weights))

    def judge(self, outputs, batch, base):
        names = [base.config.id2label[index] for index in range(outputs.logits.shape[-1])]
        found = [dict(zip(names, row, strict=True)) for row in exact(outputs.logits).softmax(-1).tolist()]
        return [self.prediction(probabilities) for probabilities in found]

    def prediction(self, probabilities):
        best = max(probabilities, key=probabilities.__getitem__)
        return {"label": best, "probability": probabilities[best], "probabilities": probabilities}

    def score(self, predictions, rows, base):
        return class_scores([str(row["label"]) for row in rows], [p["label"] for p in predictions])

    def report(self, predictions, rows, base):
        return class_table([str(row["label"]) for row in rows], [p["label"] for p in predictions], list(base.config.label2id))

    def sample(self, count):
        from PIL import Image

        colours, rows = {"red": (220, 40, 30), "green": (40, 200, 60), "blue": (30, 60, 230)}, []
        for index in range(count):
            name = list(colours)[index % 3]
            image = Image.new("RGB", (40 + index % 5, 36 + index % 3), tuple(value + index % 7 for value in colours[name]))
            rows.append({"image": {"bytes": as_png(image)}, "label": name})
        return rows

    def gold(self, row, base):
        return self.prediction({name: float(name == str(row["label"])) for name in base.config.label2id})


@hookimpl
def hubtune_tasks():
    return [ImageClassification]

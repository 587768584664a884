"""Audio classification: one label per sound, such as a keyword, a speaker, a language or an instrument."""

from dataclasses import dataclass

from hubtune import Batch, Column, DataError, Loss, Metric, Setup, hookimpl, label_space, option
from hubtune_audio.sounds import AUDIO, FRAMES, SoundTask, examples_of, inputs_of, tone


@dataclass(frozen=True)
class AudioOptions:
    max_seconds: float = option(30.0, "longer sounds are cut, in training anywhere, else in the middle; 0: never")


class AudioClassification(SoundTask):
    """One label per sound."""

    contract = 1
    name = "audio-classification"
    summary = "a label for a sound: keyword, speaker, emotion, instrument"
    model = "AutoModelForAudioClassification"
    pipeline_tag = "audio-classification"
    metric = Metric("accuracy")
    Options = AudioOptions
    columns = (
        AUDIO,
        Column("label", ("label", "labels", "class", "category", "target", "command", "keyword", "intent", "emotion",
                         "genre", "language", "speaker", "speaker_id", "y"), kind="label", needed="train"),
    )

    def inspect(self, splits):
        labels = label_space({split: [[written(row["label"])] for row in rows] for split, rows in splits.items()})
        return {"labels": labels}

    def configure(self, facts, base):
        old = list(base.config.id2label.values())
        labels = facts.get("labels") or old
        labels = old if set(old) == set(labels) else labels  # a head that is trained already keeps its order
        return Setup({
            "problem_type": "single_label_classification", "num_labels": len(labels),
            "id2label": dict(enumerate(labels)), "label2id": {label: index for index, label in enumerate(labels)},
        }, base.processor)

    def label_id(self, row, base):
        label, known = written(row["label"]), base.config.label2id
        if label not in known:
            raise DataError(f"the label {label!r} is none of the model's: {', '.join(map(repr, known))}.")
        return known[label]

    def label_ids(self, predictions, rows, base):
        """What is right and what was found, as ids."""
        return [self.label_id(row, base) for row in rows], [base.config.label2id[p["label"]] for p in predictions]

    def encode(self, rows, base):
        limits = [round(self.options.max_seconds * FRAMES), base.max_length]
        for row, example in zip(rows, examples_of(rows, base, min(filter(None, limits), default=None)), strict=True):
            yield [example if row.get("label") is None else {**example, "target": self.label_id(row, base)}]

    def collate(self, examples, base, draws):
        import torch

        targets = None
        if all("target" in example for example in examples):
            targets = torch.tensor([example["target"] for example in examples])
        return Batch(inputs_of(examples, base, draws), targets, len(examples))

    def loss(self, outputs, batch):
        import torch
        from torch.nn import functional as F

        logits = outputs.logits.to(torch.promote_types(outputs.logits.dtype, torch.float32))
        return Loss(F.cross_entropy(logits, batch.targets, reduction="sum"), batch.size)

    def judge(self, outputs, batch, base):
        found = []
        for row in outputs.logits.double().softmax(-1).tolist():
            probabilities = {base.config.id2label[index]: value for index, value in enumerate(row)}
            best = max(probabilities, key=probabilities.__getitem__)
            found.append({"label": best, "probability": probabilities[best], "probabilities": probabilities})
        return found

    def score(self, predictions, rows, base):
        from sklearn.metrics import accuracy_score, f1_score

        gold, found = self.label_ids(predictions, rows, base)
        return {"accuracy": float(accuracy_score(gold, found)),
                "f1_macro": float(f1_score(gold, found, average="macro", zero_division=0.0))}

    def report(self, predictions, rows, base):
        from sklearn.metrics import classification_report

        names = [base.config.id2label[index] for index in range(len(base.config.id2label))]
        return classification_report(
            *self.label_ids(predictions, rows, base), labels=range(len(names)), target_names=names, output_dict=True,
            zero_division=0.0,
        )

    def sample(self, count):
        import random

        draw = random.Random(0)
        pitches = {"low": 200.0, "high": 2000.0}
        return [{"audio": tone(draw, [pitches[label]] * (2 + row % 3)), "label": label}
                for row, label in zip(range(count), list(pitches) * count, strict=False)]

    def gold(self, row, base):
        label = base.config.id2label[self.label_id(row, base)]
        probabilities = {name: float(name == label) for name in base.config.label2id}
        return {"label": label, "probability": 1.0, "probabilities": probabilities}


def written(value):
    """A label as a string: 1 and 1.0 are "1", true is "true"."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


@hookimpl
def hubtune_tasks():
    return [AudioClassification]

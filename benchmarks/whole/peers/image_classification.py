"""Trainer on a folder of images (transformers' docs, tasks/image_classification)."""

from datasets import load_dataset
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    DefaultDataCollator,
    Trainer,
    TrainingArguments,
)

from benchmarks.whole.peers.common import parse, settings, train_and_save

given = parse()
data = load_dataset("imagefolder", data_dir=str(given.data), split="train")
names = data.features["label"].names
processor = AutoImageProcessor.from_pretrained(given.model)
model = AutoModelForImageClassification.from_pretrained(
    given.model, num_labels=len(names), id2label=dict(enumerate(names)),
    label2id={name: index for index, name in enumerate(names)})


def transform(batch):
    pixels = processor([image.convert("RGB") for image in batch["image"]], return_tensors="pt")
    return {"pixel_values": pixels["pixel_values"], "labels": batch["label"]}


arguments = TrainingArguments(**settings(given, grouped=False), remove_unused_columns=False)
train_and_save(Trainer(
    model, arguments, train_dataset=data.with_transform(transform),
    data_collator=DefaultDataCollator(), processing_class=processor))

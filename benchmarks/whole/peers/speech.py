"""Trainer on recordings with their text, by CTC (transformers' docs, tasks/asr)."""

import csv

import soundfile
import torch
from datasets import Dataset
from transformers import AutoModelForCTC, AutoProcessor, Trainer, TrainingArguments

from benchmarks.whole.peers.common import parse, settings, train_and_save

given = parse()
processor = AutoProcessor.from_pretrained(given.model)
model = AutoModelForCTC.from_pretrained(
    given.model, ctc_loss_reduction="mean", pad_token_id=processor.tokenizer.pad_token_id)
with (given.data / "train" / "metadata.csv").open(encoding="utf-8", newline="") as file:
    rows = list(csv.DictReader(file))
sounds = [soundfile.read(given.data / "train" / row["file_name"], dtype="float32")[0] for row in rows]
encoded = [processor(audio=sound, sampling_rate=16_000).input_values[0] for sound in sounds]
data = Dataset.from_dict({
    "input_values": encoded, "labels": [processor.tokenizer(row["transcription"]).input_ids for row in rows]})


def collate(features):
    batch = processor.feature_extractor.pad(
        [{"input_values": row["input_values"]} for row in features], padding=True, return_tensors="pt")
    texts = processor.tokenizer.pad([{"input_ids": row["labels"]} for row in features], padding=True, return_tensors="pt")
    batch["labels"] = texts["input_ids"].masked_fill(texts["attention_mask"].ne(1), -100)
    return {name: value if isinstance(value, torch.Tensor) else torch.tensor(value) for name, value in batch.items()}


arguments = TrainingArguments(**{**settings(given), "length_column_name": "length"})
data = data.add_column("length", [len(sound) for sound in encoded])
train_and_save(Trainer(model, arguments, train_dataset=data, data_collator=collate, processing_class=processor))

"""Trainer on texts with labels (transformers' docs, tasks/sequence_classification)."""

from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

from benchmarks.whole.peers.common import lines, parse, settings, train_and_save

given = parse()
rows = lines(given.data / "train.jsonl")
names = sorted({row["label"] for row in rows})
tokenizer = AutoTokenizer.from_pretrained(given.model)
model = AutoModelForSequenceClassification.from_pretrained(
    given.model, num_labels=len(names), id2label=dict(enumerate(names)),
    label2id={name: index for index, name in enumerate(names)})
encoded = tokenizer([row["text"] for row in rows], truncation=True, max_length=given.max_length)
data = Dataset.from_dict({**encoded, "labels": [names.index(row["label"]) for row in rows]})
train_and_save(Trainer(
    model, TrainingArguments(**settings(given)), train_dataset=data,
    data_collator=DataCollatorWithPadding(tokenizer), processing_class=tokenizer))

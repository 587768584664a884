"""Trainer on words with tags (transformers' docs, tasks/token_classification)."""

from datasets import Dataset
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
)

from benchmarks.whole.peers.common import lines, parse, settings, train_and_save

given = parse()
rows = lines(given.data / "train.jsonl")
names = sorted({tag for row in rows for tag in row["ner_tags"]})
ids = {name: index for index, name in enumerate(names)}
tokenizer = AutoTokenizer.from_pretrained(given.model)
model = AutoModelForTokenClassification.from_pretrained(
    given.model, num_labels=len(names), id2label=dict(enumerate(names)), label2id=ids)
encoded = tokenizer([row["tokens"] for row in rows], truncation=True, is_split_into_words=True,
                    max_length=given.max_length)
labels = []
for index, row in enumerate(rows):
    words = encoded.word_ids(index)
    before = [None, *words[:-1]]
    labels.append([-100 if word is None or word == last else ids[row["ner_tags"][word]]
                   for word, last in zip(words, before)])
data = Dataset.from_dict({**encoded, "labels": labels})
train_and_save(Trainer(
    model, TrainingArguments(**settings(given)), train_dataset=data,
    data_collator=DataCollatorForTokenClassification(tokenizer), processing_class=tokenizer))

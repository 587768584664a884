"""Seq2SeqTrainer on texts and their translations (transformers' docs, tasks/translation)."""

from datasets import Dataset
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)

from benchmarks.whole.peers.common import lines, parse, settings, train_and_save

given = parse()
rows = lines(given.data / "train.jsonl")
tokenizer = AutoTokenizer.from_pretrained(given.model)
model = AutoModelForSeq2SeqLM.from_pretrained(given.model)
encoded = tokenizer([row["text"] for row in rows], text_target=[row["target"] for row in rows],
                    truncation=True, max_length=given.max_length)
train_and_save(Seq2SeqTrainer(
    model, Seq2SeqTrainingArguments(**settings(given)), train_dataset=Dataset.from_dict(dict(encoded)),
    data_collator=DataCollatorForSeq2Seq(tokenizer, model=model), processing_class=tokenizer))

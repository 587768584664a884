"""sentence-transformers on pairs with a score, by CoSENT (its docs, sentence_transformer/training_overview)."""

from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import CoSENTLoss

from benchmarks.whole.peers.common import lines, parse, settings, train_and_save

given = parse()
rows = lines(given.data / "train.jsonl")
data = Dataset.from_dict({
    "sentence1": [row["sentence1"] for row in rows], "sentence2": [row["sentence2"] for row in rows],
    "score": [row["score"] / 5 for row in rows]})
model = SentenceTransformer(given.model, device="cpu")
model.max_seq_length = given.max_length
arguments = SentenceTransformerTrainingArguments(**settings(given, grouped=False))
train_and_save(SentenceTransformerTrainer(
    model, arguments, train_dataset=data, loss=CoSENTLoss(model)))

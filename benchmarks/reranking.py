"""Reranking beside sentence-transformers' own trainer: the same model, rows, epochs, batches and learning rate.

    python -m benchmarks.reranking            # prints a table; each training in a process of its own, on one thread

banking77: a question to the bank, and the names of eight intents: its own and the seven nearest ones of another kind that MiniLM
finds. sts2016: pairs of sentences with a grade from 0 to 5; scored on lists of ten, of which the others are drawn, with grade 0.
"""

from __future__ import annotations

import csv
import random
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import rows, training
from benchmarks.alone import alone
from benchmarks.measures import clock

Row = dict[str, Any]
Scores = Callable[[Sequence[Row]], Sequence[Sequence[float]]]
"""From rows to the scores of each one's passages."""

TRAINED, SCORED, NEGATIVES, BATCH = 320, 200, 7, 16
WAYS = ("untrained", "CrossEncoder binary", "CrossEncoder listwise", "hubtune binary", "hubtune listwise", "hubtune margin")
EPOCHS = {"banking77": 2, "sts2016": 3}


def main() -> None:
    """Measure every way on both data sets; a loss over lists needs lists."""
    for data in EPOCHS:
        for way in WAYS:
            if data == "banking77" or way in ("untrained", "CrossEncoder binary", "hubtune binary"):
                found = alone("reranking", 1, way=way, data=data)
                print(f"{data:10} {way:24}", "  ".join(f"{name} {found[name]:.4f}" for name in ("ndcg@10", "mrr@10", "map")),
                      f"  {found['cpu']:.0f} CPU s  {found['wall']:.0f} s", flush=True)


def one(way: str, data: str) -> dict[str, float]:
    """Train in one way, and score the test rows."""
    from hubtune_plugins.text.passages.scores import NAMES, list_scores

    train, test = read(data)
    library, _, loss = way.partition(" ")
    spent: dict[str, float] = {"cpu": 0.0, "wall": 0.0}
    scores = {"untrained": untrained, "CrossEncoder": cross_encoder, "hubtune": hubtune}[library](train, loss, EPOCHS[data], spent)
    ranked = [list_scores(found, row["grades"]) for row, found in zip(test, scores(test), strict=True)]
    return {**{name: sum(found[name] for found in ranked) / len(ranked) for name in NAMES}, **spent}


def read(data: str) -> tuple[list[Row], list[Row]]:
    """Training rows, and lists to score; the same ones for every way."""
    if data == "sts2016":
        return ([{"query": row["sentence1"], "passages": row["sentence2"], "grades": float(row["score"])} for row in table("sts2016", "train")],
                among_others(table("sts2016", "test")))
    return tuple(with_negatives(rows.drawn(rows.read_split(rows.FOLDER / data, split), count, seed=0))
                 for split, count in (("train", TRAINED), ("test", SCORED)))  # type: ignore[return-value]


def table(data: str, split: str) -> list[Row]:
    """A csv file."""
    with (rows.FOLDER / data / f"{split}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def with_negatives(texts: Sequence[rows.Row]) -> list[Row]:
    """Texts with the name of their intent and the nearest others, in an order that says nothing."""
    from hubtune_plugins.text.passages.mining import hard_negatives

    asked = [{"query": text, "positive": label.replace("_", " ")} for text, label in texts]
    made = []
    for number, (row, negatives) in enumerate(zip(asked, hard_negatives(asked, training.default_model(), NEGATIVES), strict=True)):
        graded = [(row["positive"], 1.0), *((text, 0.0) for text in negatives)]
        random.Random(number).shuffle(graded)
        made.append({"query": row["query"], "passages": [text for text, _ in graded], "grades": [grade for _, grade in graded]})
    return made


def among_others(pairs: Sequence[Row]) -> list[Row]:
    """Each sentence that has an equal or similar one, with its own second sentence and nine others."""
    made = []
    for number, row in enumerate(pairs):
        if float(row["score"]) > 0:
            others = [other["sentence2"] for other in pairs if other["sentence1"] != row["sentence1"] and other["source"] == row["source"]]
            made.append({"query": row["sentence1"], "passages": [row["sentence2"], *random.Random(number).sample(others, 9)],
                         "grades": [float(row["score"])] + [0.0] * 9})
    return made


def untrained(train: Sequence[Row], loss: str, epochs: int, spent: dict[str, float]) -> Scores:
    """MiniLM with a new head."""
    return asked(made_encoder())


def made_encoder() -> Any:
    """MiniLM as a CrossEncoder with a new head, the same at every call."""
    import torch
    from sentence_transformers import CrossEncoder

    torch.manual_seed(0)
    return CrossEncoder(training.default_model(), num_labels=1, device="cpu")


def cross_encoder(train: Sequence[Row], loss: str, epochs: int, spent: dict[str, float]) -> Scores:
    """sentence-transformers' trainer, in bf16; its binary loss takes a passage a row, its listwise one (ListNet) a list."""
    from datasets import Dataset
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments, losses

    model, highest = made_encoder(), max(max(listed(row["grades"])) for row in train)
    if loss == "listwise":
        found = [{"query": row["query"], "docs": row["passages"], "labels": row["grades"]} for row in train]
    else:
        found = [{"query": row["query"], "passage": text, "label": grade / highest}
                 for row in train for text, grade in zip(listed(row["passages"]), listed(row["grades"]), strict=True)]
    batch = BATCH * len(found) // len(train)
    with tempfile.TemporaryDirectory() as out:
        arguments = CrossEncoderTrainingArguments(
            out, num_train_epochs=epochs, per_device_train_batch_size=batch, learning_rate=training.RATE, warmup_steps=0.1, use_cpu=True,
            bf16=True, save_strategy="no", report_to=[], disable_tqdm=True, seed=0)
        kind = losses.ListNetLoss if loss == "listwise" else losses.BinaryCrossEntropyLoss
        trainer = CrossEncoderTrainer(model=model, args=arguments, train_dataset=Dataset.from_list(found), loss=kind(model))
        with clock(spent):
            trainer.train()
    return asked(model)


def asked(model: Any) -> Scores:
    """A CrossEncoder's scores."""
    def scores(found: Sequence[Row]) -> list[list[float]]:
        flat = iter(model.predict([(row["query"], text) for row in found for text in row["passages"]], batch_size=64).tolist())
        return [[next(flat) for _ in row["passages"]] for row in found]

    return scores


def listed(cell: Any) -> list[Any]:
    """A list, or a list of the one value."""
    return cell if isinstance(cell, list) else [cell]


def hubtune(train: Sequence[Row], loss: str, epochs: int, spent: dict[str, float]) -> Scores:
    """hubtune.train on the same rows, to the end; a few rows of train are validated, since it wants some."""
    import hubtune as library

    settings = {"task.loss": loss, "train.epochs": epochs, "train.batch_size": BATCH, "train.learning_rate": training.RATE,
                "train.keep": "last", "train.early_stopping_patience": 0, "train.precision": "bf16", "train.verify": False}
    place = tempfile.mkdtemp()
    with clock(spent):
        run = library.train("reranking", model=training.default_model(), data={"train": list(train), "validation": list(train[:16])},
                            set=settings, out=f"{place}/run")

    def scores(found: Sequence[Row]) -> list[list[float]]:
        answers = run.predict([{"query": row["query"], "passages": row["passages"]} for row in found])
        return [[one["score"] for one in sorted(answer["ranking"], key=lambda one: one["index"])] for answer in answers]

    return scores


if __name__ == "__main__":
    main()

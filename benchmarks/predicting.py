"""Answers: `hubtune` beside transformers' pipeline, from texts in memory to labels, with a model that is loaded."""

from __future__ import annotations

import inspect
import tempfile
from typing import Any

from benchmarks import peers, rows, training
from benchmarks.measures import clock, peak_bytes

WAYS = ("pipeline, one by one", "pipeline, batches of 16", "hubtune fp32", "hubtune bf16")
SEED = 0


def one(way: str, data: str, count: int) -> dict[str, Any]:
    """CPU and wall seconds of the answers after a first few, and the answers. The head is random: only its cost counts."""
    from transformers import logging

    logging.set_verbosity_error()
    texts = rows.read(data)
    job = peers.Job(training.default_model(), [], texts.classes, 0, SEED, 0.0)
    asked = [text for text, _ in rows.drawn(texts.test, count, SEED)]
    with tempfile.TemporaryDirectory() as folder:
        for part in peers.classifier(job):
            part.save_pretrained(folder)
        ask = asker(way, folder)
        ask(asked[:16])
        found: dict[str, float] = {}
        with clock(found):
            answers = ask(asked)
    return {"cpu_ms": 1e3 * found["cpu"] / len(asked), "wall_ms": 1e3 * found["wall"] / len(asked), "peak_bytes": peak_bytes(),
            "answers": [int(answer.removeprefix("LABEL_")) for answer in answers]}


def asker(way: str, folder: str) -> Any:
    """From texts to labels."""
    if way.startswith("pipeline"):
        from transformers import pipeline

        ask = pipeline("text-classification", model=folder, tokenizer=folder, batch_size=16 if "16" in way else 1)
        return lambda texts: [answer["label"] for answer in ask(texts, truncation=True)]
    import hubtune
    from hubtune.devices import memory

    memory.keep_freed_memory()  # as the command line does
    precise = {"precision": way.removeprefix("hubtune ")}
    model = hubtune.load(folder, task="text-classification", **(precise if chooses(hubtune.load) else {}))
    asked = precise if chooses(type(model).predict) else {}
    return lambda texts: [answer["label"] for answer in model.predict(texts, **asked)]


def chooses(function: Any) -> bool:
    """Whether a function of this hubtune lets the number format be chosen."""
    return "precision" in inspect.signature(function).parameters


def ways() -> list[str]:
    """What this hubtune can do: one that answers in fp32 only has no bf16."""
    import hubtune
    from hubtune.runs.predictor import Model

    return [way for way in WAYS if way != "hubtune bf16" or chooses(hubtune.load) or chooses(Model.predict)]

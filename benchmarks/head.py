"""A training of the head alone, over five epochs: from the rows to the trained model, since a cache is made before the first step."""

from __future__ import annotations

from typing import Any

from benchmarks import rows, training
from benchmarks.measures import BATCH, clock, peak_bytes
from benchmarks.peers import Job

EPOCHS = 5


def one(variant: str, data: str, count: int) -> dict[str, Any]:
    """CPU and wall seconds; what is imported is imported before."""
    texts = rows.read(data)
    job = Job(training.default_model(), rows.drawn(texts.train, count, 0), texts.classes, EPOCHS * (count // BATCH), 0, 1e-2)
    training.warm(job)
    found: dict[str, float] = {}
    with clock(found):
        steps, _ = training.HEADS[variant](job)
    figures = steps.figures()
    return {**found, "loss": figures["loss"], "norm": figures["norm"], "peak_bytes": peak_bytes()}

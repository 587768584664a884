"""What is right of held-out rows after a whole training: the price of speed, if it has one.

A line for every (data, variant, seed); those that are there are not made again, so a run that stopped goes on.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import rows, training
from benchmarks.measures import BATCH, clock, peak_bytes
from benchmarks.peers import Job

DATA = ("sentiment_uci", "banking77")
VARIANTS = ("Trainer dynamic", "hubtune bf16 random", "hubtune bf16 bucketed")
AGAINST = VARIANTS[0]


def one(variant: str, data: str, epochs: int, seed: int) -> dict[str, Any]:
    """Train on all rows, answer all held-out ones: `right` has a 1 for each that is."""
    texts = rows.read(data)
    chosen = training.VARIANTS[variant]
    steps = epochs * math.ceil(len(texts.train) / BATCH)
    job = Job(training.default_model(), texts.train, texts.classes, steps, seed, chosen.lr)
    training.warm(job)
    found: dict[str, float] = {}
    with clock(found):
        done, answers = chosen.train(job)
    peak = peak_bytes()
    said = answers([text for text, _ in texts.test])
    right = "".join(str(int(answer == label)) for answer, (_, label) in zip(said, texts.test, strict=True))
    return {"steps": steps, "accuracy": right.count("1") / len(right), "right": right, "training_cpu": found["cpu"],
            "training_wall": found["wall"], "loss": done.figures()["loss"], "peak_bytes": peak}


def wilson(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95% interval of a share that was seen in so many rows."""
    middle, half = share + z * z / (2 * count), z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return (middle - half) / (1 + z * z / count), (middle + half) / (1 + z * z / count)


def difference(ours: Sequence[str], theirs: Sequence[str], draws: int = 2000) -> tuple[float, float, float]:
    """How much more of the rows ours gets right, mean of the seeds, with a 95% interval: seeds and rows drawn again and again."""
    draw = random.Random(0)
    count = len(ours[0])

    def mean(seeds: Sequence[str], chosen: Mapping[int, int]) -> float:
        return statistics.fmean(sum(times for row, times in chosen.items() if seed[row] == "1") for seed in seeds) / count

    every = dict.fromkeys(range(count), 1)
    found = []
    for _ in range(draws):
        chosen: dict[int, int] = {}
        for row in draw.choices(range(count), k=count):
            chosen[row] = chosen.get(row, 0) + 1
        found.append(mean(draw.choices(ours, k=len(ours)), chosen) - mean(draw.choices(theirs, k=len(theirs)), chosen))
    found.sort()
    return mean(ours, every) - mean(theirs, every), found[round(0.025 * draws)], found[round(0.975 * draws) - 1]

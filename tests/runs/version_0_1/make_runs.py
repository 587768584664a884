"""Make the runs in this folder with hubtune 0.1: run it here with that version installed. Kept to show how they came to be."""

from __future__ import annotations

import contextlib
import csv
import os
import signal
from pathlib import Path

import hubtune
from hubtune.testing import models

TEXTS = [("good film", "good"), ("bad film", "bad"), ("a good day", "good"), ("a bad day", "bad"), ("so good", "good"), ("so bad", "bad")] * 4
SETTINGS = {"train.steps": 6, "train.batch_size": 4, "train.lr": 0.01, "train.patience": 2, "train.validations": 2, "train.clip": 0.5,
            "train.order": "bucketed", "train.seed": 3}


class StopAfterFour(hubtune.Watcher):  # type: ignore[misc, name-defined]
    steps = 0

    def advance(self, units: int, **shown: float) -> None:
        self.steps += "loss" in shown
        if self.steps == 4:
            os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    with open("rows.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows([(f"{text} {number}", label) for number, (text, label) in enumerate(TEXTS)])
    models.tiny_model("bert", Path("tiny-bert"), texts=[text for text, _ in TEXTS], hidden_size=8, intermediate_size=8, num_attention_heads=2,
                      num_hidden_layers=1, max_position_embeddings=16)
    named = {"task": "text-classification", "model": "tiny-bert", "data": "rows.csv", "overwrite": True}
    hubtune.train(**named, out="full", set={**SETTINGS, "task.kind": "one"})
    hubtune.train(**named, out="lora", strategy="lora", set=SETTINGS)
    with contextlib.suppress(hubtune.HubtuneError):
        hubtune.train(**named, out="stopped", set=SETTINGS, watcher=StopAfterFour())

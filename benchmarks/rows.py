"""The texts that are learned and asked: two data sets of short ones, and one of long ones with three kinds of text."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

Row = tuple[str, str]
"""A text and its label."""

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data"
DATA = {
    "sentiment_uci": "opinions in a sentence, 2 classes",
    "banking77": "questions to a bank, 77 classes",
    "gsm8k_preference": "sums in words, 3 classes: the question, a right solution, a wrong one",
}
KINDS = {"prompt": "question", "chosen": "right", "rejected": "wrong"}


@dataclass(frozen=True)
class Texts:
    """Labelled texts to learn from, and others to be asked."""

    train: list[Row]
    test: list[Row]

    @property
    def classes(self) -> list[str]:
        return sorted({label for _, label in self.train})


def read(name: str, folder: Path = FOLDER) -> Texts:
    """One of the data sets, from the folder that has a folder for each."""
    return Texts(*(read_split(folder / name, split) for split in ("train", "test")))


def read_split(folder: Path, split: str) -> list[Row]:
    """text and label of a table; of pairs of answers, each text with the name of its column for a label."""
    pairs = folder / f"{split}.jsonl"
    if pairs.is_file():
        lines = [json.loads(line) for line in pairs.read_text(encoding="utf-8").splitlines()]
        return [(line[column], kind) for line in lines for column, kind in KINDS.items()]
    with (folder / f"{split}.csv").open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)]


def drawn(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """So many of the rows, always the same ones for a seed."""
    return random.Random(seed).sample(list(rows), min(count, len(rows)))

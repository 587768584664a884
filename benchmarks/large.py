"""Train on more rows than fit in memory, and say what memory and time that took.

    python -m benchmarks.large                   # ten million short rows: an hour on one core, and 3 GB of disk
    python -m benchmarks.large --rows 1000000

The same training is done on a thousand rows before: what memory it takes is that of the libraries and the model. Memory is
told apart as the kernel does: `anonymous` is what the process has for itself; `mapped` are pages of files, of libraries and of
data, which the kernel drops as it needs their room. Linux alone says so.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hubtune_plugins.text.text_classification import TextClassification

import hubtune
from benchmarks.measures import machine
from hubtune.testing.bench import registered

WORDS = ["a", "the", "lovely", "dull", "day", "film", "walk", "seat", "river", "kettle", "never", "again", "what", "where", "slow", "quick", "warm", "cold", "very", "quite", "town", "garden"]
TOKENS = {word: number + 5 for number, word in enumerate(WORDS)}
FIGURES = {"VmRSS": "resident", "RssAnon": "anonymous", "RssFile": "mapped"}
WARM = 1000


def main() -> int:
    """Measure, and print a line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--model", help="a folder or a model of the Hub; without one, a tiny BERT")
    parser.add_argument("--place", type=Path, help="where the rows and all that is made of them are written; they are deleted at the end")
    parser.add_argument("--words", action="store_true", help="a word is a token: without the tokenizer, which takes most of the time")
    parser.add_argument("--cut", action="store_true", help="have the validation split cut from the rows (1000 of them) instead of giving it")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.place) as temporary:
        place = Path(temporary)
        (place / "temporary").mkdir()
        os.environ |= {"HF_DATASETS_CACHE": str(place / "cache"), "TMPDIR": str(place / "temporary")}
        tempfile.tempdir = None
        found = measured(place, given)
    print(json.dumps(found, indent=2))
    return 0


def measured(place: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Train on few rows and then on many."""
    from hubtune.testing.models import tiny_model

    model = given.model or str(tiny_model("bert", place / "model"))
    alone = training(place / "few", model, WARM, given)
    seconds = time.monotonic()
    many = training(place / "many", model, given.rows, given)
    return {
        "rows": given.rows, "steps": given.steps, "model": given.model or "tiny", "words": given.words, "few": alone, "many": many,
        "seconds": round(time.monotonic() - seconds), "machine": machine(),
        "above": {name: many["peak"][name] - alone["peak"][name] for name in FIGURES.values()},
    }


def training(place: Path, model: str, rows: int, given: argparse.Namespace) -> dict[str, Any]:
    """Write rows, train on them, and say the peak of memory and the seconds, in all and of every stage. Memory in MB."""
    place.mkdir()
    write(place / "data", rows, given.cut)
    stages = Stages()
    sets = {"train.max_steps": given.steps, "train.batch_size": 32, "train.verify": False, "train.evals_per_epoch": 1}
    if given.cut:
        sets["data.validation"] = WARM / rows if rows > WARM else 0.5
    with registered(Words), stages.watching():
        run = hubtune.train(Words.name if given.words else "text-classification", model=model, data=place / "data", out=place / "run", set=sets, callbacks=stages)
    return {"peak": stages.peak(), "stages": stages.stages, "accuracy": run.metrics["accuracy"], "steps": run.record["steps"]}


class Words(TextClassification):
    """Text classification in which a word is a token, whatever the model's tokenizer says."""

    name = "words"

    def encode(self, rows: Any, base: Any) -> Iterator[list[dict[str, Any]]]:
        for row in rows:
            yield [self.with_target({"input_ids": [TOKENS[word] for word in row["text"].split()][: base.max_length]}, row, base)]


def write(folder: Path, rows: int, cut: bool) -> None:
    """Labelled rows of about ten words in parquet files, a million in each; a label says whether a row has more of one word than of another."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    folder.mkdir()
    for split, count in (("train", rows), *(() if cut else [("validation", WARM)])):
        draw = random.Random(split)
        for part, start in enumerate(range(0, count, 1_000_000)):
            texts = [" ".join(draw.choices(WORDS, k=draw.randint(6, 14))) for _ in range(min(1_000_000, count - start))]
            labels = ["warm" if text.count("warm") > text.count("cold") else "cold" for text in texts]
            parquet.write_table(pa.table({"text": texts, "label": labels}), folder / f"{split}-{part:03d}.parquet", row_group_size=50_000)


class Stages(hubtune.Callbacks):
    """Callbacks that divide a run into stages, at what hubtune says of it, and looks at memory meanwhile."""

    def __init__(self) -> None:
        self.stages: list[dict[str, Any]] = []

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Look at memory until the end."""
        self.enter("reading")
        over = threading.Event()
        thread = threading.Thread(target=self.look, args=(over,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.enter("over")
            self.stages.pop()

    def look(self, over: threading.Event) -> None:
        """Note the peak of the stage at hand."""
        while not over.wait(0.02):
            stage = self.stages[-1]
            stage |= {name: max(stage.get(name, 0), value) for name, value in memory().items()}

    def enter(self, name: str) -> None:
        """Another stage begins."""
        now = time.monotonic()
        if self.stages:
            self.stages[-1]["seconds"] = round(now - self.stages[-1].pop("began"), 1)
            print(json.dumps(self.stages[-1]), file=sys.stderr, flush=True)
        self.stages.append({"stage": name, "began": now, **memory()})

    def peak(self) -> dict[str, int]:
        """The peak of each figure."""
        return {name: max(stage[name] for stage in self.stages) for name in FIGURES.values()}

    def on_info(self, text: str) -> None:
        after = {"columns": "inspecting and splitting", "rows": "opening the model", "model": "encoding", "tokens a row": "loading"}
        for said, stage in after.items():
            if text.startswith(f"{said}:"):
                self.enter(stage)

    def on_progress_start(self, what: str, total: int) -> None:
        self.enter(what)

    def on_warning(self, text: str) -> None:
        print(text, file=sys.stderr)


def memory() -> dict[str, int]:
    """What this process has now, in MB."""
    said = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    return {name: int(said[key].split()[0]) // 1000 for key, name in FIGURES.items()}


if __name__ == "__main__":
    sys.exit(main())

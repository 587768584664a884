"""Train every task on real data with the command line, score it before and after, and write docs/figures.md.

    make figures                                     # all of them; goes on where it was stopped
    make figures FIGURES='--only wnut17 codah'       # or: python -m benchmarks.tasks --only wnut17 codah
    make figures FIGURES=--page-only                 # only write the page, from what was measured before
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks import figures_page, rows, training
from benchmarks.alone import ran
from benchmarks.figures import FIGURES, MINILM, MOBILENET, STORIES, Figure
from benchmarks.lines import Record, each, read
from benchmarks.measures import REPO, machine

MODELS = rows.FOLDER.parent / "models"
ASKED = 8
"""Rows that `hubtune predict` answers."""
WATCHED = 2
"""Rows of those learnt by heart that are validated in training: an epoch is one step, and a validation comes with each."""
STILL = {"train.max_steps": 1, "train.learning_rate": 1e-12, "train.verify": False}
"""A training in which nothing moves: what it scores is the untrained model."""

BESIDE = {"step", "epoch", "lr", "grad_norm", "rows", "tokens", "padded_tokens", "micro_batches", "penalty"}
"""What a step of `log.jsonl` says beside its losses."""


def main() -> int:
    """Measure what is asked for and not measured yet. 1: something could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tasks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="tasks or data sets")
    parser.add_argument("--page", type=Path, default=REPO / "docs" / "figures.md")
    parser.add_argument("--results", type=Path, default=REPO / "benchmarks" / "results")
    parser.add_argument("--page-only", action="store_true")
    given = parser.parse_args()
    kept = given.results / "figures.jsonl"
    given.results.mkdir(parents=True, exist_ok=True)
    chosen = [figure for figure in FIGURES if not given.only or {figure.task, figure.data} & set(given.only)]
    planned = [] if given.page_only else [arguments_of(figure) for figure in present(chosen)]
    failed = each(kept, planned, one, say)
    given.page.write_text(figures_page.page(read(kept)), encoding="utf-8")
    print(f"written: {given.page}")
    return 1 if failed else 0


def present(figures: Iterable[Figure]) -> list[Figure]:
    """Those whose data and model are there; the others are named."""
    found = []
    for figure in figures:
        needed = [rows.FOLDER / figure.data, *([MODELS / figure.model] if figure.model in (MOBILENET, STORIES) else [])]
        gone = [path.name for path in needed if not path.is_dir()]
        if gone:
            print(f"skipped: {figure.name}, since {' and '.join(gone)} is not there")
        else:
            found.append(figure)
    return found


def arguments_of(figure: Figure) -> Record:
    """What a line repeats of its figure: with other settings it is measured anew."""
    return {"name": figure.name, **json.loads(json.dumps(dataclasses.asdict(figure)))}


def one(arguments: Record) -> Record:
    """The line of a figure: scores before and after, and what these cost."""
    figure = Figure(**{name: value for name, value in arguments.items() if name != "name"})
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        data, split = data_of(figure, folder)
        model = model_of(figure, data, folder)
        before = untrained(figure, model, data, folder)
        clock = children()
        while_training = drawn(data, folder / "watched.jsonl", WATCHED, "train") if figure.heart else None
        run = hubtune("train", figure.task, *source(model, data, while_training), "--out", str(folder / "run"), *sets(figure.sets))
        cpu = children() - clock
        after = hubtune("evaluate", run["run"], "--data", data, *split)
        asked = drawn(data, folder / "asked.jsonl", ASKED, split[1] if split else None)
        answers = hubtune("predict", run["run"], "--data", asked)["predictions"]
        log = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        record = json.loads((folder / "run" / "run.json").read_text(encoding="utf-8"))
    return {
        **arguments, "before": before, "after": {name: after[name] for name in ("split", "rows", "metrics", "intervals", "report")},
        "trained": {name: run[name] for name in ("rows", "steps", "epochs", "metrics", "precision", "peak_memory_bytes", "parameters")},
        "best_step": record["best_step"], "training_cpu": cpu, "losses": losses(log), "answered": len(answers), **machine(),
    }


def hubtune(*words: str) -> Any:
    """What a command prints as JSON."""
    return json.loads(ran(["-m", "hubtune", *words, "--json"], threads=1))


def sets(values: dict[str, Any]) -> list[str]:
    """Recipe keys as arguments of the command line; the name of a pretrained model is that of its folder."""
    named = {key: training.default_model() if value == MINILM else value for key, value in values.items()}
    return [word for key, value in named.items() for word in ("--set", f"{key}={json.dumps(value)}")]


def source(model: str, data: str, validation: str | None) -> list[str]:
    """Model and data, as arguments, and the validation rows where the data are not to have their own."""
    return ["--model", model, "--data", data, *(sets({"data.validation": validation}) if validation else [])]


def data_of(figure: Figure, folder: Path) -> tuple[str, list[str]]:
    """The data to train on, and the arguments that say what is scored."""
    whole = str(rows.FOLDER / figure.data)
    return (drawn(whole, folder / "heart.jsonl", figure.heart, "train"), ["--split", "train"]) if figure.heart else (whole, [])


def drawn(data: str, path: Path, count: int, split: str | None) -> str:
    """A file with so many rows of a split (none: the one that is scored), as hubtune reads them; the same ones in every run."""
    from hubtune.data import sources
    from hubtune.data.splits import HELD_OUT

    found = sources.load(data).splits
    chosen = found[split or next(name for name in (*HELD_OUT, *found) if name in found)]
    every = list(range(len(chosen)))
    chosen.select(random.Random(0).sample(every, min(count, len(every)))).to_json(path)
    return str(path)


def model_of(figure: Figure, data: str, folder: Path) -> str:
    """The folder of a pretrained model, or of one that is made: a tokenizer learns its words from the data."""
    if figure.model == MINILM:
        return training.default_model()
    if figure.model in (MOBILENET, STORIES):
        return str(MODELS / figure.model)
    from hubtune.data import sources
    from hubtune.testing.models import strings, tiny_model

    texts = list(strings(dict(row) for row in sources.load(data).splits["train"].select_columns(text_columns(data))))
    return str(tiny_model(figure.model, folder / "model", **({"texts": texts} if texts else {}), **figure.made))


def text_columns(data: str) -> list[str]:
    """The columns of train that hold texts."""
    from hubtune.data import sources

    features = sources.load(data).splits["train"].features
    return [name for name, kind in features.items() if getattr(kind, "dtype", None) in ("string", "large_string")]


def untrained(figure: Figure, model: str, data: str, folder: Path) -> Record:
    """Scores of the model before its training, or of the simplest answer."""
    if figure.answers:
        found = hubtune("evaluate", model, "--task", figure.task, "--data", data, *(["--split", "train"] if figure.heart else []))
        return {"metrics": found["metrics"], "intervals": found["intervals"]}
    if figure.guess:
        return {"metrics": {}, "intervals": {}, "guess": guessed(figure, data)}
    untuned = {key: value for key, value in figure.sets.items() if not key.startswith("train.")}
    hubtune("train", figure.task, *source(model, data, data if figure.heart else None), "--out", str(folder / "still"), *sets({**untuned, **STILL}))
    record = json.loads((folder / "still" / "run.json").read_text(encoding="utf-8"))
    split = "test" if "test" in record["metrics"] else "validation"
    return {"metrics": record["metrics"][split], "intervals": record["intervals"][split]}


def guessed(figure: Figure, data: str) -> float:
    """The share of test rows that have the commonest value of train."""
    from hubtune.data import sources

    found = sources.load(data).splits
    most = Counter(found["train"][figure.guess]).most_common(1)[0][0]
    values = found["test"][figure.guess]
    return sum(value == most for value in values) / len(values)


def losses(log: list[Record]) -> list[float]:
    """The loss of the first step, and the mean of the last ten: all its terms together."""
    steps = [sum(line[name] for name in line.keys() - BESIDE) for line in log if "grad_norm" in line]
    return [steps[0], sum(steps[-10:]) / len(steps[-10:])]


def children() -> float:
    """CPU seconds of the commands that have ended."""
    spent = os.times()
    return spent.children_user + spent.children_system


def say(seconds: float, found: Record) -> None:
    """A line of what was measured."""
    scores = {name: [round(found[when]["metrics"][name], 4) for when in ("before", "after") if name in found[when]["metrics"]] for name in found["shown"]}
    print(f"{seconds:6.0f} s  {found['name']}: {scores}, loss {found['losses'][0]:.3g} to {found['losses'][1]:.3g}, {found['training_cpu']:.0f} CPU s", flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""The page of the figures of every task, from the lines that `benchmarks.tasks` left; and how long the plugins' files are."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Sequence

from benchmarks.lines import Record
from benchmarks.measures import REPO
from benchmarks.report import machine_of, table

NOTE = "<!-- Written by `make figures` from its measurements: run it anew instead of editing. -->"
READ = """\
Every figure is made by the command line alone: `hubtune train`, then `hubtune evaluate` and `hubtune predict` from the saved run, each a process of its own
with one thread. The data are small cuts of public sets, beside this repository in `../shared/data`: no figure is one of a leaderboard.

- **before**: the pretrained model, asked as it is; where its head for the task is new, the model with that head untrained (\\*), or the
  **guess**: the share of rows that have the commonest label of train.
- **after**: with 95% intervals, by drawing the rows again (not for mAP). Rows of test, or of validation where there is no test split.
- **CPU s**: of the whole command `hubtune train`, which also scores validation and test rows. **MiB**: the most memory that it held.
- Pretrained: MiniLM-L6 (22.7 M parameters), mobilenet_v2_0.35_224 (0.4 M), stories260K (0.26 M). The others are made by the command, small and with random
  weights; they show that a task learns, not how well it may do.
- **By heart**: a made model learns a few rows, and is asked them again. *Loss*: of the first step, and the mean of the last ten, in training; below 10% is asked."""


def page(records: Iterable[Record]) -> str:
    """All of it. records: lines, of which the last of a name counts."""
    found = list({record["name"]: record for record in records}.values())
    learnt = [record for record in found if not record["heart"]]
    heart = [record for record in found if record["heart"]]
    parts = [NOTE, "# What every task learns", "Made by `make figures`; the code is in `benchmarks/`.", "## How to read it", READ]
    if found:
        parts.insert(3, machine_of([{"stage": "machine", "threads": 1, **found[-1], "load_after": max(record["load"] for record in found)}])[0])
    if learnt:
        parts += ["## Learnt from all rows", learnt_table(learnt)]
    if heart:
        parts += ["## Learnt by heart", heart_table(heart)]
    if found:
        parts += ["## Settings", "What is not set follows from the data, the model and the strategy (`full`).", settings_table(found)]
    for record in found:
        parts += by_class(record)
    parts += ["## How long the plugins are", sizes_words(), sizes_table()]
    return "\n\n".join(parts) + "\n"


def learnt_table(found: Sequence[Record]) -> str:
    """A line for every score of a figure; what it cost stands in its first line."""
    lines = []
    for record in found:
        trained, after = record["trained"], record["after"]
        for place, name in enumerate(record["shown"]):
            cost = [f"{trained['rows']['train']} / {after['rows']} {after['split']}", f"{trained['epochs']:g}", f"{record['training_cpu']:.0f}",
                    f"{trained['peak_memory_bytes'] / 2**20:.0f}"]
            lines.append([*(what(record) if not place else ["", "", ""]), name, was(record, name), guess(record, name),
                          f"**{figure(after['metrics'][name])}**{interval(after, name)}", *(cost if not place else [""] * len(cost))])
        lines += [["", "", "", name, was_of_run(name), "", figure(trained["metrics"][after["split"]][name]), "", "", "", ""]
                  for name in ("reward_accuracy", "reward_margin") if name in trained["metrics"].get(after["split"], {})]
    return table(("task", "data", "model", "score", "before", "guess", "after", "rows: train / scored", "epochs", "CPU s", "MiB"), lines)


def heart_table(found: Sequence[Record]) -> str:
    """A line for every score of what was learnt by heart, with the loss in the first of them."""
    lines = []
    for record in found:
        first, last = record["losses"]
        for place, name in enumerate(record["shown"]):
            cost = [f"{first:.3g} to {last:.2g}", f"{last / first:.1%}", str(record["trained"]["steps"]), f"{record['training_cpu']:.0f}"]
            lines.append([*(what(record) if not place else ["", "", ""]), str(record["after"]["rows"]) if not place else "", name, was(record, name),
                          f"**{figure(record['after']['metrics'][name])}**", *(cost if not place else [""] * len(cost))])
    return table(("task", "data", "model", "rows", "score", "before", "after", "loss", "of the first", "steps", "CPU s"), lines)


def what(record: Record) -> list[str]:
    """Task, data and model of a figure."""
    return [record["task"], record["data"] + (f" ({record['note']})" if record["note"] else ""), model_of(record)]


def model_of(record: Record) -> str:
    """The model; of a made one, its size."""
    made = record["model"] not in ("MiniLM-L6", "mobilenet_v2_0.35_224", "stories260K")
    return f"made {record['model']}, {record['trained']['parameters']['total'] / 1e3:.0f} k" if made else str(record["model"])


def was(record: Record, name: str) -> str:
    """A score before the training, with its interval; starred where the head was new; empty where a guess was scored instead."""
    before = record["before"]
    if name not in before["metrics"]:
        return ""
    return figure(before["metrics"][name]) + interval(before, name) + ("" if record["answers"] else " \\*")


def was_of_run(name: str) -> str:
    """What a model says of itself against itself."""
    return {"reward_accuracy": "0.500", "reward_margin": "0.000"}[name]


def guess(record: Record, name: str) -> str:
    """The simplest answer's accuracy."""
    found = record["before"].get("guess")
    return figure(found) if found is not None and name == "accuracy" else ""


def interval(scores: Record, name: str) -> str:
    """The 95% interval of a score, where it has one."""
    found = scores["intervals"].get(name)
    return f" ({figure(found[0])} to {figure(found[1])})" if found else ""


def figure(value: float) -> str:
    """A share with three places; larger values with one or two."""
    return f"{value:.3f}" if abs(value) < 2 else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def settings_table(found: Sequence[Record]) -> str:
    """The recipe keys of every figure."""
    return table(("figure", "settings", "made with"), [
        [record["name"], *(", ".join(f"`{key}={value}`" for key, value in record[part].items()) for part in ("sets", "made"))] for record in found
    ])


def by_class(record: Record) -> list[str]:
    """A report per class, or per type, as a section; of few classes only."""
    rows = {name: said for name, said in record["after"]["report"].items() if isinstance(said, dict)}
    names = list(next(iter(rows.values()), {}))
    if not rows or len(rows) > 12 or any(list(said) != names for said in rows.values()):
        return []
    return [f"## {record['name']}, by class", table(("class", *names), [[name, *map(cell, said.values())] for name, said in rows.items()])]


def cell(value: object) -> str:
    """A number of a report: counts are whole."""
    return figure(value) if isinstance(value, float) and not value.is_integer() else f"{value:g}" if isinstance(value, int | float) else str(value)


def sizes() -> dict[str, dict[str, int]]:
    """Lines of every file that brings a task or a strategy, by kind and by the file's place in `plugins/`."""
    found: dict[str, dict[str, int]] = {"task": {}, "strategy": {}}
    for path in sorted((REPO / "plugins" / "hubtune_plugins").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        for kind, hook in (("task", "hubtune_tasks"), ("strategy", "hubtune_strategies")):
            if re.search(rf"^def {hook}\(", text, re.MULTILINE):
                found[kind][path.relative_to(REPO / "plugins" / "hubtune_plugins").as_posix()] = len(text.splitlines())
    return found


def sizes_words() -> str:
    """The medians."""
    medians = {kind: statistics.median(lines.values()) for kind, lines in sizes().items()}
    return f"Lines of each file, all counted. Median of a task: {medians['task']:g}; of a strategy: {medians['strategy']:g}."


def sizes_table() -> str:
    """Each file of a plugin."""
    return table(("kind", "file", "lines"), [[kind, f"`{name}`", lines] for kind, files in sizes().items() for name, lines in files.items()])

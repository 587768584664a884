"""The page of what was measured, from the lines that the measurements left."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks import accuracy, rows, training

Record = dict[str, Any]
NOTE = "<!-- Written by `make bench` from its measurements: run it anew instead of editing. -->"
READ = """\
Every measurement is a process of its own, and the variants take turns, round after round. Figures are medians over the rounds; in brackets
the least and the most. Where nothing else is said, a process has one thread, and CPU seconds count, since wall seconds
tell of whoever else uses the machine.

- **CPU ms**: a row's share of the steps but the first. **x NAME**: how many times less than that.
- The same rows, steps of 16 rows, learning rate and seed for all; texts are cut at 128 tokens. The textbook pads each to 128, with AdamW and a linear
  schedule. *Trainer dynamic* pads to the longest of a batch; *with everything* is bf16 and `group_by_length` besides. A variant that pads all
  to 128 takes the first few of the steps, as each costs the same.
- *random* and *bucketed* are `train.sampler`. `hubtune lora` adapts every linear layer, *the same layers* only those of the textbook; both
  bucketed, which is the default.
- **tokens**: real ones in a row, without padding. **of the GEMM**: 6 (LoRA: 4) operations a parameter beyond the embeddings and real token, as a
  share of what a product of 256 x 384 and 384 x 1536 reaches in the same process and format (fp32: by the faster of torch's two ways).
- **loss** is the mean of the last five steps, too few steps to compare models by; **gradient** the mean norm before clipping, above zero in each step."""


def page(timings: Iterable[Record], trainings: Iterable[Record], whole: Sequence[str] = ()) -> str:
    """All of it. timings: of every stage and number of threads; trainings: of the accuracy; whole: the parts on whole commands, which lead."""
    timings, trainings = list(timings), list(trainings)
    parts = [NOTE, "# Performance", "Made by `make bench`; the code is in `benchmarks/`.", *whole, *machine_of(timings), "## How to read it", READ]
    for threads in sorted({record["threads"] for record in timings}):
        chosen = [record for record in timings if record["threads"] == threads]
        parts += stages(chosen, "" if threads == 1 else f", {threads} threads, by wall time", "cpu_ms" if threads == 1 else "wall_ms")
    if trainings:
        parts += ["## Accuracy", accuracy_words(trainings), accuracy_table(trainings)]
    return "\n\n".join(parts) + "\n"


def stages(records: list[Record], title: str, clock: str) -> list[str]:
    """The sections of one number of threads."""
    def of(stage: str) -> list[Record]:
        return [record for record in records if record["stage"] == stage]

    parts = []
    if found := of("training"):
        parts += [f"## Training{title}", words_on_training(found)]
        for data in unique(found, "data"):
            parts += [f"### {data}: {rows.DATA.get(data, '')}", training_table([record for record in found if record["data"] == data], clock)]
    if found := of("head"):
        parts += [f"## The head alone{title}", f"Five epochs of {found[0]['count']} rows of {found[0]['data']}, from the rows to the trained model.",
                  head_table(found, clock)]
    if found := of("predicting"):
        parts += [f"## Prediction{title}", "*Agreement*: the share of rows that get the label which the pipeline gives them one by one.",
                  predicting_table(found, clock)]
    if found := of("starting"):
        parts += [f"## Start{title}", starting_table(found)]
    if found := of("saving"):
        parts += [f"## Checkpoints{title}", saving_table(found)]
    return parts


def machine_of(timings: Sequence[Record]) -> list[str]:
    """Where and when, once for every number of threads."""
    lines = []
    for record in timings:
        if record["stage"] == "machine":
            commit = f" ({record['commit']})" if record["commit"] else ""
            lines.append([
                record["date"], f"{record['cpu']}; {record['cores']} cores, {record['memory']} GiB", record["bf16"], record["threads"],
                f"{record['load']} to {record.get('load_after', '?')}", record["python"], record["torch"], record["transformers"],
                record["hubtune"] + commit,
            ])
    head = ("date (UTC)", "machine", "bf16", "threads", "load average", "Python", "torch", "transformers", "hubtune")
    return [table(head, lines)] if lines else []


def words_on_training(found: Sequence[Record]) -> str:
    """How much was measured, and how fast products were."""
    speeds = {name: statistics.median(record["gemm"][name] for record in found if name in record["gemm"]) for name in found[0]["gemm"]}
    rounds = len({record["seed"] for record in found})
    return (f"MiniLM-L6; rounds: {rounds}, of {found[0]['steps']} steps ({found[0]['padded_steps']} where all is padded to 128). "
            f"GFLOP a CPU second of the product: {', '.join(f'{name} {speed:.0f}' for name, speed in speeds.items())}.")


def training_table(found: Sequence[Record], clock: str = "cpu_ms") -> str:
    """A line for every variant; ratios by the clock that counts."""
    cost = medians(found, "variant", clock)
    full = [name for name in ("textbook fp32", "Trainer dynamic", "Trainer with everything") if name in cost]
    lora = [name for name in ("textbook lora",) if name in cost]
    lines = []
    for name in cost:
        own = [record for record in found if record["variant"] == name]
        against = lora if "lora" in name else full
        lines.append([
            name, spread([record["cpu_ms"] for record in own]), number(middle(own, "wall_ms")),
            *(f"{cost[other] / cost[name]:.2f}" if other in against else "" for other in (*full, *lora)),
            f"{middle(own, 'tokens_a_row'):.1f}", f"{middle(own, 'peak_bytes') / 2**20:.0f}", f"{middle(own, 'share'):.0%}",
            f"{middle(own, 'loss'):.3f}", f"{middle(own, 'norm'):.2f}",
        ])
    return table(("variant", "CPU ms", "wall ms", *(f"x {other}" for other in (*full, *lora)), "tokens", "peak MiB", "of the GEMM", "loss", "gradient"), lines)


def head_table(found: Sequence[Record], clock: str = "cpu_ms") -> str:
    """Seconds of whole trainings of the head."""
    key = clock.removesuffix("_ms")
    cost = medians(found, "variant", key)
    ours = cost.get("hubtune head")
    return table(("variant", "CPU s", "wall s", "hubtune is faster by", "peak MiB", "loss"), [
        [name, spread([r["cpu"] for r in own]), number(middle(own, "wall")), f"{cost[name] / ours:.2f}" if ours else "",
         f"{middle(own, 'peak_bytes') / 2**20:.0f}", f"{middle(own, 'loss'):.3f}"]
        for name in cost for own in [[record for record in found if record["variant"] == name]]
    ])


def predicting_table(found: Sequence[Record], clock: str = "cpu_ms") -> str:
    """Milliseconds of an answer, beside the better of the pipeline's batches."""
    lines = []
    for data in unique(found, "data"):
        here = [record for record in found if record["data"] == data]
        cost = medians(here, "way", clock)
        better = min((value for way, value in cost.items() if way.startswith("pipeline")), default=None)
        first = next((record["answers"] for record in here if record["way"] == "pipeline, one by one"), None)
        for way, value in cost.items():
            own = [record for record in here if record["way"] == way]
            same = statistics.fmean(a == b for a, b in zip(own[0]["answers"], first, strict=True)) if first else None
            lines.append([data, way, spread([record["cpu_ms"] for record in own]), number(middle(own, "wall_ms")),
                          f"{better / value:.2f}" if better else "", "" if same is None else f"{same:.1%}", f"{middle(own, 'peak_bytes') / 2**20:.0f}"])
    return table(("data", "by", "CPU ms a row", "wall ms a row", "x the better pipeline", "agreement", "peak MiB"), lines)


def starting_table(found: Sequence[Record]) -> str:
    """Milliseconds until a command has printed its help."""
    return table(("command", "wall ms", "CPU ms"), [
        [f"`{name}`", *(spread([r[key] for r in found if r["command"] == name]) for key in ("wall_ms", "cpu_ms"))] for name in unique(found, "command")
    ])


def saving_table(found: Sequence[Record]) -> str:
    """How long the loop waits for a checkpoint."""
    return table(("saves", "MB each", "the loop waits, ms", "the first time, ms", "ms per 440 MB"), [
        [record["saves"], f"{record['bytes'] / 1e6:.0f}", *(number(record[key]) for key in ("stall_ms", "first_ms", "stall_ms_a_unit"))] for record in found
    ])


def accuracy_words(found: Sequence[Record]) -> str:
    """What was trained, and what the intervals are."""
    epochs = ", ".join(str(count) for count in sorted({record["epochs"] for record in found}))
    return (f"Whole trainings: {epochs} epochs of all rows, then every held-out row answered once in fp32. The same rows, steps, learning rate and seeds; the last "
            "weights count. Intervals are 95%: of the mean over the seeds by the number of rows (Wilson), and of the difference by drawing seeds and rows "
            "again. hubtune lets a new head learn ten times as fast; Trainer has one rate for all.")


def accuracy_table(found: Sequence[Record]) -> str:
    """Right answers of every variant, and how many more than those of Trainer with dynamic padding."""
    lines = []
    for data in unique(found, "data"):
        here = [record for record in found if record["data"] == data]
        theirs = [record["right"] for record in here if record["variant"] == accuracy.AGAINST]
        for name in in_order(unique(here, "variant")):
            own = sorted((record for record in here if record["variant"] == name), key=lambda record: record["seed"])
            mean = statistics.fmean(record["accuracy"] for record in own)
            low, high = accuracy.wilson(mean, len(own[0]["right"]))
            more = ""
            if theirs and name != accuracy.AGAINST:
                more = "{:+.3f} ({:+.3f} to {:+.3f})".format(*accuracy.difference([record["right"] for record in own], theirs))
            lines.append([data, name, f"{mean:.3f} ({low:.3f} to {high:.3f})", ", ".join(f"{record['accuracy']:.3f}" for record in own), more,
                          f"{middle(own, 'training_cpu'):.0f}", f"{middle(own, 'peak_bytes') / 2**20:.0f}"])
    return table(("data", "variant", "accuracy", "by seed", f"more than {accuracy.AGAINST}", "CPU s of the training", "peak MiB"), lines)


def in_order(names: Iterable[str]) -> list[str]:
    """Variants as they are listed."""
    known = list(training.VARIANTS)
    return sorted(names, key=lambda name: known.index(name) if name in known else len(known))


def medians(found: Sequence[Record], by: str, key: str) -> dict[str, float]:
    """The median of a figure for every name."""
    return {name: middle([record for record in found if record[by] == name], key) for name in unique(found, by)}


def middle(found: Iterable[Record], key: str) -> float:
    return statistics.median(record[key] for record in found)


def unique(found: Iterable[Record], key: str) -> list[str]:
    """Values in the order of their first coming."""
    return list(dict.fromkeys(record[key] for record in found))


def spread(values: Sequence[float]) -> str:
    """The median, with the least and the most where there are several."""
    said = number(statistics.median(values))
    return said if len(values) < 2 else f"{said} ({number(min(values))}-{number(max(values))})"


def number(value: float) -> str:
    """Three digits that count."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(head: Sequence[str], lines: Iterable[Iterable[object]]) -> str:
    """A Markdown table."""
    every = [list(head), ["---"] * len(head), *([str(cell) for cell in line] for line in lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in every)

"""Measure hubtune beside its peers, and write docs/performance.md.

    make bench                                       # everything but the accuracy
    make bench BENCH='--rounds 1 --stages training'  # or: python -m benchmarks --rounds 1 --stages training
    make bench BENCH=--accuracy                      # whole trainings: an hour and more; goes on where it was stopped
    make bench BENCH='--threads 2'                   # the same on two threads, as further sections by wall time
    make bench BENCH='--accuracy --data sentiment_uci --only "textbook fp32"'
    make bench BENCH=--page-only                     # only write the page, from what was measured before
    python -m benchmarks.whole --help                # whole commands on all cores, every task: the page's first section
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import accuracy, predicting, report, rows, starting, training
from benchmarks.alone import Failed, alone
from benchmarks.lines import each, read
from benchmarks.measures import REPO, machine
from benchmarks.whole import page as whole

STAGES = ("training", "head", "predicting", "starting", "saving")
LONG = "gsm8k_preference"
Plan = Iterator[tuple[str, dict[str, Any]]]


def main() -> int:
    """Measure what is asked for. 1: something could not be measured."""
    given = asked()
    kept = given.results
    kept.mkdir(parents=True, exist_ok=True)
    failed = 0
    if not given.page_only:
        present = [name for name in given.data if (rows.FOLDER / name).is_dir()]
        for name in sorted(set(given.data) - set(present)):
            print(f"skipped: {name}, since its folder is not there")
        measure = trainings if given.accuracy else timings
        failed = measure(given, present, kept)
    found = [record for path in sorted(kept.glob("timings-*.jsonl")) for record in read(path)]
    given.page.write_text(report.page(found, read(kept / "accuracy.jsonl"), whole.read_section(kept / "whole.json")), encoding="utf-8")
    print(f"written: {given.page}")
    return 1 if failed else 0


def asked() -> argparse.Namespace:
    """What the user wants."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20, help="of a variant of the training")
    parser.add_argument("--padded-steps", type=int, default=5, help="of one whose steps all cost the same")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", nargs="+", choices=rows.DATA, default=list(rows.DATA))
    parser.add_argument("--only", nargs="+", choices=training.VARIANTS, metavar="VARIANT", help=f"of {', '.join(training.VARIANTS)}")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--accuracy", action="store_true", help="train to the end, and count right answers, instead of measuring times")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--page", type=Path, default=REPO / "docs" / "performance.md")
    parser.add_argument("--results", type=Path, default=REPO / "benchmarks" / "results")
    parser.add_argument("--page-only", action="store_true")
    return parser.parse_args()


def planned(given: argparse.Namespace, data: list[str]) -> Plan:
    """The measurements of times, in turn."""
    for turn in range(given.rounds):
        if "training" in given.stages:
            for name in data:
                for variant in given.only or training.VARIANTS:
                    yield "training", {"variant": variant, "data": name, "steps": given.steps, "padded_steps": given.padded_steps, "seed": turn}
        if "predicting" in given.stages:
            for name in data:
                for way in predicting.ways():
                    yield "predicting", {"way": way, "data": name, "count": 200}
        if "starting" in given.stages:
            for _ in range(5):
                for command in starting.COMMANDS:
                    yield "starting", {"command": command}
    if "head" in given.stages and LONG in data:
        for variant in training.HEADS:
            yield "head", {"variant": variant, "data": LONG, "count": 256}
    if "saving" in given.stages and data:
        yield "saving", {"data": data[0], "steps": 150, "seconds_between": 2.0}


def timings(given: argparse.Namespace, data: list[str], kept: Path) -> int:
    """Measure times anew, for this number of threads; how many measurements failed."""
    path, failed = kept / f"timings-{given.threads}.jsonl", 0
    began, found = time.monotonic(), [{"stage": "machine", "threads": given.threads, **machine()}]
    for stage, arguments in planned(given, data):
        try:
            found.append({"stage": stage, **alone(stage, given.threads, **arguments)})
            say(time.monotonic() - began, stage, arguments, found[-1])
        except Failed as error:
            failed += 1
            print(f"failed: {stage} {arguments}\n{error}", file=sys.stderr)
        found[0]["load_after"] = round(os.getloadavg()[0], 1)
        path.write_text("".join(json.dumps(record) + "\n" for record in found), encoding="utf-8")  # a run that is stopped leaves what it has
    return failed


def trainings(given: argparse.Namespace, data: list[str], kept: Path) -> int:
    """Whole trainings, each of which leaves its line at once; how many failed."""
    planned = ({"variant": variant, "data": name, "epochs": given.epochs, "seed": seed} for seed in given.seeds
               for name in data if name in accuracy.DATA for variant in given.only or accuracy.VARIANTS)
    return each(kept / "accuracy.jsonl", planned, lambda arguments: {**alone("accuracy", given.threads, **arguments), "machine": machine()},
                lambda seconds, found: say(seconds, "accuracy", found, found))


def say(seconds: float, stage: str, arguments: dict[str, Any], found: dict[str, Any]) -> None:
    """A line of what was measured."""
    shown = {key: round(found[key], 3) for key in ("cpu_ms", "wall_ms", "cpu", "stall_ms", "accuracy", "training_cpu") if key in found}
    named = [str(value) for key, value in arguments.items() if key in ("data", "variant", "way", "command", "seed")]
    print(f"{seconds:6.0f} s  {stage}: {', '.join(named)}: {shown}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

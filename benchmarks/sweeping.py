"""`hubtune sweep` on real rows: TPE beside random search and the defaults, killed in the middle and resumed.

    python -m benchmarks.sweeping                          # both data sets; writes results/sweeping.json
    python -m benchmarks.sweeping --data banking77 --trials 20 --budget 30m --folder /tmp/sweeps

Both searches of a data set run at once, with one thread each, through the same command: the same ranges, the defaults of each
strategy first, the same pruning. The one by TPE gets SIGKILL in the middle of a trial, and is started again by the same command.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import rows, training
from benchmarks.measures import REPO

RESULTS = REPO / "benchmarks" / "results" / "sweeping.json"
ROWS = {"sentiment_uci": (400, 600), "banking77": (385, 1000)}
"""Training and test rows of each data set, drawn with seed 0; of banking77 five of each label, so that train has all of them."""
NAMES = {"sentiment_uci": {"0": "negative", "1": "positive"}}
SETTINGS = {"data.validation": 0.2}
STRATEGIES = {"sentiment_uci": "full,lora,head", "banking77": "head"}
KILL_AFTER = 7
"""Trials that have ended when the search by TPE gets its SIGKILL, `KILL_SECONDS` into the next that begins."""
KILL_SECONDS = 4.0
ENDED = ("complete", "pruned", "failed", "refused", "too-long")


@dataclass(frozen=True)
class Job:
    """A search to measure. data: the folder with train.csv and test.csv."""

    data: Path
    folder: Path
    trials: int
    budget: str
    strategies: str


def main() -> int:
    """Search each data set, and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweeping", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--budget", default="30m", help="of each search, with its winner's training")
    parser.add_argument("--folder", type=Path, help="where sweeps are kept; those in it go on  [default: a temporary one]")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = (given.folder or Path(temporary)).absolute()
        for name in given.data:
            job = Job(cut(name, place), place / f"{name}-runs", given.trials, given.budget, STRATEGIES[name])
            found = {"data": name, "rows": ROWS[name], "trials": given.trials, "budget": given.budget, "strategies": job.strategies, **measure(job)}
            save(given.results, found)
    return 0


def save(path: Path, found: dict[str, Any]) -> None:
    """Put the figures of a data set in the place of its earlier ones."""
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    kept = [one for one in before if one["data"] != found["data"]]
    path.write_text(json.dumps([*kept, found], indent=1) + "\n", encoding="utf-8")


def cut(name: str, place: Path) -> Path:
    """Write the rows that are drawn from a data set; returns their folder."""
    folder, names = place / name, NAMES.get(name, {})
    folder.mkdir(parents=True, exist_ok=True)
    texts = rows.read(name)
    for split, drawn_from, count in zip(("train", "test"), (texts.train, texts.test), ROWS[name], strict=True):
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            chosen = balanced(drawn_from, count) if (name, split) == ("banking77", "train") else rows.drawn(drawn_from, count, 0)
            writer.writerows((text, names.get(label, label)) for text, label in chosen)
    return folder


def balanced(texts: Sequence[rows.Row], count: int) -> list[rows.Row]:
    """So many rows, the same number of each label, in an order that tells nothing."""
    labels = sorted({label for _, label in texts})
    of_label = [rows.drawn([row for row in texts if row[1] == label], count // len(labels), 0) for label in labels]
    return rows.drawn([row for part in of_label for row in part], count, 0)


# ------------------------------------------------------------------------------------------------------ searches


def measure(job: Job) -> dict[str, Any]:
    """Run both searches at once, then the defaults, and compare what they chose on the test rows."""
    found: dict[str, Any] = {}
    job.folder.mkdir(parents=True, exist_ok=True)
    load = os.getloadavg()[0]
    other = threading.Thread(target=lambda: found.update(random=searched(job, "random")))
    other.start()
    found["tpe"] = searched(job, "tpe", kill=True)
    other.join()
    defaults, best = job.folder / "defaults", [job.folder / sampler / "best" for sampler in ("tpe", "random")]
    if not (defaults / "run.json").exists():
        ran(["train", "text-classification", *common(job), "--strategy", job.strategies.split(",")[0], "--out", str(defaults)])
    compared = json.loads(ran(["compare", *map(str, [defaults, *best]), "--json"]))
    scores = [{key: run[key] for key in ("strategy", "metrics", "intervals", "seconds")} for run in compared["runs"]]
    pairs = [{key: pair.get(key) for key in ("verdict", "rows", "difference", "reason")} for pair in compared["pairs"]]
    return {**found, "defaults": scores[0], "winners": dict(zip(("tpe", "random"), scores[1:], strict=True)),
            "against_defaults": dict(zip(("tpe", "random"), pairs, strict=True)), "loads": [load, os.getloadavg()[0]]}


def searched(job: Job, sampler: str, kill: bool = False) -> dict[str, Any]:
    """Run a search to its end; what it found, and what a kill in its middle left."""
    out = job.folder / sampler
    words = ["sweep", "text-classification", *common(job), "--strategies", job.strategies, "--trials", str(job.trials),
             "--budget", job.budget, "--sampler", sampler, "--out", str(out)]
    begun = time.monotonic()
    note = job.folder / "killed.json"
    if kill and not note.exists():
        note.write_text(json.dumps(killed_in_the_middle(words, out)), encoding="utf-8")
    ran(words)
    document = json.loads((out / "sweep.json").read_text(encoding="utf-8"))
    kept = ("number", "strategy", "state", "score", "epochs", "planned_epochs", "seconds", "curve", "settings", "reason")
    found = {"seconds": round(time.monotonic() - begun, 1), "trial_seconds": document["seconds"], "metric": document["metric"],
             "states": document["states"], "best": document["best"]["number"], "scores": document["scores"],
             "search": document["search"], "trials": [{key: one[key] for key in kept} for one in document["trials"]]}
    if kill:
        killed = json.loads(note.read_text(encoding="utf-8"))
        found["killed"] = {**killed, **after_kill(killed, document["trials"])}
    return found


def killed_in_the_middle(words: Sequence[str], out: Path) -> dict[str, Any]:
    """Start a search, and kill it in the middle of a trial; what was known then."""
    process = started(words, subprocess.DEVNULL)
    begun, known = 0.0, []
    try:
        while process.poll() is None:
            time.sleep(0.2)
            known = trials_of(out)
            ended = sum(one["state"] in ENDED for one in known)
            begun = begun or (time.monotonic() if ended >= KILL_AFTER else 0.0)
            if begun and time.monotonic() - begun >= KILL_SECONDS:
                break
    finally:
        process.kill()
    code = process.wait()
    return {"exit": code, "trials": [{key: one[key] for key in ("number", "state", "score", "settings")} for one in known]}


def after_kill(killed: dict[str, Any], trials: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Describe the trials that had ended before the kill, and the one that it ended."""
    now = {one["number"]: one for one in trials}
    ended = [one for one in killed["trials"] if one["state"] in ENDED]
    return {"ended_before": len(ended), "kept": sum(all(now[one["number"]][key] == one[key] for key in one) for one in ended)}


def trials_of(out: Path) -> list[dict[str, Any]]:
    """The trials of a sweep's folder so far."""
    path = out / "sweep.json"
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["trials"] if path.exists() else []
    return found


def common(job: Job) -> list[str]:
    """The words that every command shares."""
    sets = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    return ["--model", training.default_model(), "--data", str(job.data), *sets]


def started(words: Sequence[str], output: int) -> subprocess.Popen[str]:
    """A command of hubtune with one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return subprocess.Popen([sys.executable, "-m", "hubtune", *words], cwd=REPO, env=environment, text=True,
                            stdout=output, stderr=subprocess.DEVNULL if output == subprocess.DEVNULL else sys.stderr)


def ran(words: Sequence[str]) -> str:
    """Return the output of a command of hubtune that ended well."""
    process = started(words, subprocess.PIPE)
    printed, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"hubtune {words[0]} ended with {process.returncode}")
    return printed


if __name__ == "__main__":
    sys.exit(main())

"""A command in a process of its own: wall seconds, peak memory of it and of its children, and its steps."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import tasks
from benchmarks.alone import Failed
from benchmarks.lines import read
from benchmarks.measures import REPO
from benchmarks.whole import bases, data
from benchmarks.whole.table import Row

POLL = 0.05
"""Seconds between two looks at memory."""


def one(row: Row, way: str, threads: int, seed: int, scale: float, cache: Path) -> dict[str, Any]:
    """Measure one way (`hubtune`, or a peer's name) to train a row of the table."""
    count = max(3 * row.batch_size, int(row.rows * scale))
    folder, base = data.make(row.data, count, cache), bases.make(row.base, cache)
    return measure(row, way, count, (folder, base), threads, seed, {}) | {"scale": scale}


def measure(row: Row, way: str, count: int, inputs: tuple[Path, Path], threads: int, seed: int,
            environment: dict[str, str], limit: float = float("inf"), kept: Path | None = None) -> dict[str, Any]:
    """Measure a way to train `count` rows.

    inputs: folders of the data and of the base model. limit: seconds after which it has failed.
    kept: where the saved model is moved; None deletes it.
    """
    folder, base = inputs
    place = Path(tempfile.mkdtemp(prefix="whole-"))
    try:
        words = ours(row, folder, base, place, seed) if way == "hubtune" else peer(row, way, folder, base, place, seed)
        load = os.getloadavg()[0]
        found = ran(words, threads, place, environment, limit)
        if way == "hubtune":
            log = read(place / "run" / "log.jsonl")
            found["losses"] = [sum(line[name] for name in line.keys() - tasks.BESIDE - {"padding"})
                               for line in log if "grad_norm" in line]
        if kept is not None:
            shutil.move(place / "run" / "model" if way == "hubtune" else place / "run", kept)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    losses, spans, steps = found.pop("losses"), found.pop("spans"), found["steps"]
    if not spans or not losses:
        raise Failed(f"{steps} steps with {len(losses)} losses: nothing to measure")
    learned = count * row.epochs
    return {"row": row.name, "way": way, "seed": seed, "threads": threads, "rows": count,
            "epochs": row.epochs, "load": round(load, 1), **found, "step_ms": 1e3 * statistics.fmean(spans),
            "median_step_ms": 1e3 * statistics.median(spans),
            "row_ms": 1e3 * statistics.fmean(spans) * steps / learned,
            "loss": statistics.fmean(losses[-max(1, len(losses) // 4):])}


def ours(row: Row, folder: Path, base: Path, place: Path, seed: int) -> list[str]:
    """Return the command of hubtune: its defaults, with the same rows, steps and rate as the peers."""
    # A head that learns as fast as the rest, as the peers' do; no early end.
    train = {"epochs": row.epochs, "batch_size": row.batch_size, "learning_rate": row.lr, "seed": seed,
             "precision": "bf16", "max_length": row.max_length, "early_stopping_patience": 0}
    sets: dict[str, object] = {f"train.{key}": value for key, value in train.items()}
    if row.task in ("image-classification", "automatic-speech-recognition"):
        del sets["train.max_length"]
    if row.strategy == "full":
        sets["strategy.head_rate"] = 1.0
    return ["-m", "benchmarks.whole.ours", "train", row.task, "--model", str(base), "--data", str(folder),
            "--strategy", row.strategy, "--out", str(place / "run"),
            *(word for key, value in {**sets, **row.sets}.items() for word in ("--set", f"{key}={json.dumps(value)}"))]


def peer(row: Row, way: str, folder: Path, base: Path, place: Path, seed: int) -> list[str]:
    """Return the command of a peer's script."""
    return ["-m", f"benchmarks.whole.peers.{row.script}", str(folder), str(base), str(place / "run"),
            "--epochs", str(row.epochs), "--batch-size", str(row.batch_size), "--lr", str(row.lr),
            "--max-length", str(row.max_length), "--seed", str(seed), *row.peers[way]]


def ran(words: Sequence[str], threads: int, place: Path, environment: dict[str, str],
        limit: float = float("inf")) -> dict[str, Any]:
    """Run a command of this Python, and watch it.

    peak_bytes: the most that the process held. children_bytes: the most that one of its children
    held. together_bytes: the most of all at once, pages that they share counted for each.
    """
    marks, out, err = place / "marks.json", place / "out", place / "err"
    environment = {**os.environ, **environment, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "BENCH_MARKS": str(marks),
                   "TOKENIZERS_PARALLELISM": "false", "HF_HOME": str(place / "hub"), "HF_DATASETS_CACHE": str(place / "datasets")}
    found: dict[str, Any] = {"peak_bytes": 0, "children_bytes": 0, "together_bytes": 0}
    with out.open("wb") as stdout, err.open("wb") as stderr:
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, *words], cwd=REPO, env=environment, stdout=stdout, stderr=stderr,
                                   stdin=subprocess.DEVNULL)
        while process.poll() is None:
            watch(process.pid, found)
            if time.perf_counter() - start > limit:
                process.kill()
                process.wait()
                raise Failed(f"no end within {limit:.0f} s")
            time.sleep(POLL)
        found["seconds"] = time.perf_counter() - start
    if process.returncode:
        raise Failed("\n".join(err.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-15:]))
    return {**found, **json.loads(marks.read_text(encoding="utf-8"))}


def watch(pid: int, found: dict[str, Any]) -> None:
    """Note the memory of a process and of all below it. Linux only; elsewhere the figures stay 0."""
    own = memory(pid)
    below = [memory(child) for child in descendants(pid)]
    found["peak_bytes"] = max(found["peak_bytes"], own[0])
    found["children_bytes"] = max([found["children_bytes"], *(peak for peak, _ in below)])
    found["together_bytes"] = max(found["together_bytes"], own[1] + sum(now for _, now in below))


def memory(pid: int) -> tuple[int, int]:
    """Return the most and the present resident bytes of a process; zeros where it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0, 0
    said = dict(line.split(":", 1) for line in lines if line.startswith(("VmHWM", "VmRSS")))
    peak, now = (1024 * int(said.get(name, "0 kB").split()[0]) for name in ("VmHWM", "VmRSS"))
    return peak, now


def descendants(pid: int) -> list[int]:
    """Return the processes below one."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(word) for word in path.read_text(encoding="utf-8").split()]
        except OSError:
            continue
        found += [below for child in children for below in (child, *descendants(child))]
    return found

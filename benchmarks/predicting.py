"""Answers: `hubtune` beside transformers' pipeline, from texts in memory to labels, with a model that is loaded.

`python -m benchmarks.predicting --rows 1000000` predicts a file of so many rows by the command, and samples its memory.
"""

from __future__ import annotations

import argparse
import inspect
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import peers, rows, training
from benchmarks.measures import clock, cpu_of, peak_bytes
from hubtune.files import file_sha256

WAYS = ("pipeline, one by one", "pipeline, batches of 16", "hubtune fp32", "hubtune bf16")
SEED = 0


def one(way: str, data: str, count: int) -> dict[str, Any]:
    """CPU and wall seconds of the answers after a first few, and the answers. The head is random: only its cost counts."""
    from transformers import logging

    logging.set_verbosity_error()
    texts = rows.read(data)
    job = peers.Job(training.default_model(), [], texts.classes, 0, SEED, 0.0)
    asked = [text for text, _ in rows.drawn(texts.test, count, SEED)]
    with tempfile.TemporaryDirectory() as folder:
        for part in peers.classifier(job):
            part.save_pretrained(folder)
        ask = asker(way, folder)
        ask(asked[:16])
        found: dict[str, float] = {}
        with clock(found):
            answers = ask(asked)
    return {"cpu_ms": 1e3 * found["cpu"] / len(asked), "wall_ms": 1e3 * found["wall"] / len(asked), "peak_bytes": peak_bytes(),
            "answers": [int(answer.removeprefix("LABEL_")) for answer in answers]}


def asker(way: str, folder: str) -> Any:
    """From texts to labels."""
    if way.startswith("pipeline"):
        from transformers import pipeline

        ask = pipeline("text-classification", model=folder, tokenizer=folder, batch_size=16 if "16" in way else 1)
        return lambda texts: [answer["label"] for answer in ask(texts, truncation=True)]
    import hubtune
    from hubtune.devices import memory

    memory.keep_freed_memory()  # as the command line does
    precise = {"precision": way.removeprefix("hubtune ")}
    model = hubtune.load(folder, task="text-classification", **(precise if chooses(hubtune.load) else {}))
    asked = precise if chooses(type(model).predict) else {}
    return lambda texts: [answer["label"] for answer in model.predict(texts, **asked)]


def chooses(function: Any) -> bool:
    """Whether a function of this hubtune lets the number format be chosen."""
    return "precision" in inspect.signature(function).parameters


def ways() -> list[str]:
    """What this hubtune can do: one that answers in fp32 only has no bf16."""
    import hubtune
    from hubtune.runs.predictor import Model

    return [way for way in WAYS if way != "hubtune bf16" or chooses(hubtune.load) or chooses(Model.predict)]


# ------------------------------------------------------------------------------------------- files of many rows

WORDS = ["the", "a", "very", "quite", "not", "good", "bad", "fine", "poor", "battery", "screen", "film", "plot", "room", "food", "cheap", "slow", "quick", "late", "again", "never", "always"]
LEAST = 3
"""Words of the shortest row; the longest has four times as many."""


def write_rows(path: Path, count: int) -> None:
    """Rows of 3 to 12 words with an id, as Parquet, written a part at a time."""
    import random

    import pyarrow as pa
    import pyarrow.parquet as pq

    draw, step = random.Random(SEED), 50_000
    with pq.ParquetWriter(path, pa.schema([("id", pa.int64()), ("text", pa.string())])) as writer:
        for first in range(0, count, step):
            ids = range(first, min(first + step, count))
            texts = [" ".join(draw.choices(WORDS, k=draw.randint(LEAST, 4 * LEAST))) for _ in ids]
            writer.write_table(pa.table({"id": list(ids), "text": texts}))


def make_model(model: str, folder: Path) -> None:
    """Save a classifier with a random head over a tiny BERT, or over a model's folder."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from hubtune.testing import models

    base = models.tiny_model("bert", folder / "base", texts=[" ".join(WORDS)]) if model == "tiny" else model
    AutoModelForSequenceClassification.from_pretrained(base, num_labels=2).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)


def command(model: Path, data: Path, out: Path) -> list[str]:
    """The command that predicts a file."""
    return [sys.executable, "-m", "hubtune", "predict", str(model), "--task", "text-classification", "--data", str(data),
            "--out", str(out), "--keep", "id", "--probabilities"]


def sampled(given: list[str], out: Path, kill_after: int | None = None) -> dict[str, Any]:
    """Run a command and sample its memory; end it (SIGKILL) when it has kept so many parts."""
    start, samples = time.monotonic(), []
    parts = out.with_name(f"{out.name}.partial")
    with subprocess.Popen(given, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            done = len(list(parts.glob("part-*.arrow")))
            samples.append((done, *memory_of(process.pid), cpu_of(process.pid)))
            if kill_after is not None and done >= kill_after:
                process.kill()
            time.sleep(0.5)
    return {"code": process.returncode, "seconds": time.monotonic() - start, "samples": samples,
            "cpu": max(sample[3] for sample in samples)}


def memory_of(pid: int) -> tuple[int, int]:
    """Resident bytes of a process, and of these those of no file (a file's may be dropped at any time)."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0, 0
    values = {line.split(":")[0]: line.split()[1] for line in text.splitlines() if line.startswith(("VmRSS", "RssAnon"))}
    return 1024 * int(values.get("VmRSS", 0)), 1024 * int(values.get("RssAnon", 0))


def steady_rate(samples: list[Any]) -> float:
    """Rows per CPU second from the first window that was sampled to the last."""
    from hubtune.runs.predictions.windows import WINDOW

    whole = next(place for place, sample in enumerate(samples) if sample[0] == max(done for done, *_ in samples))
    running = [sample for sample in samples[:whole + 1] if sample[0]]
    if len(running) < 2:
        return float("nan")
    return WINDOW * (running[-1][0] - running[0][0]) / (running[-1][3] - running[0][3])


def pipeline_rate(model: Path, data: Path, count: int) -> tuple[float, float]:
    """Rows a second, and per CPU second, of transformers' pipeline in batches of 16, once the model is loaded."""
    import pyarrow.parquet as pq
    from transformers import pipeline

    texts = pq.read_table(data)["text"].slice(0, count).to_pylist()
    ask = pipeline("text-classification", model=str(model), tokenizer=str(model), batch_size=16, top_k=None)
    ask(texts[:64])
    found: dict[str, float] = {}
    with clock(found):
        ask(texts, truncation=True)
    return len(texts) / found["wall"], len(texts) / found["cpu"]


def main() -> None:
    """Predict a file of many rows: rows a second, memory, the same file after a kill, and pipeline's rate."""
    given = argparse.ArgumentParser(description=main.__doc__)
    given.add_argument("--rows", type=int, default=1_000_000)
    given.add_argument("--model", default="tiny", help="a folder of a base model, or tiny")
    given.add_argument("--pipeline-rows", type=int, default=5000)
    given.add_argument("--no-kill", action="store_true", help="do not kill the command and go on with it")
    chosen = given.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model, data, whole, again = (folder / name for name in ("model", "rows.parquet", "whole.parquet", "again.parquet"))
        model.mkdir()
        make_model(chosen.model, model)
        write_rows(data, chosen.rows)
        found = sampled(command(model, data, whole), whole)
        print(f"{chosen.rows:,} rows in {found['seconds']:.1f} s of a whole command ({chosen.rows / found['seconds']:,.0f} rows/s), "
              f"{found['cpu']:.1f} s of CPU; exit code {found['code']}")
        last = max(done for done, *_ in found["samples"]) or 1
        for part in range(11):  # where the first of so many parts was sampled
            done, resident, own, _ = next(s for s in found["samples"] if s[0] >= part * last // 10)
            print(f"  {done:5} windows: {resident / 1e6:6.0f} MB resident, {own / 1e6:6.0f} MB of it of no file")
        print(f"  peak {max(s[1] for s in found['samples']) / 1e6:.0f} MB resident, {max(s[2] for s in found['samples']) / 1e6:.0f} MB of no file")
        if not chosen.no_kill:
            killed = sampled(command(model, data, again), again, kill_after=last // 3)
            resumed = sampled(command(model, data, again), again)
            print(f"killed (code {killed['code']}) after {killed['seconds']:.1f} s, gone on with in {resumed['seconds']:.1f} s; the same file: "
                  f"{file_sha256(whole) == file_sha256(again)} ({file_sha256(whole)[:16]})")
        print(f"once loaded: {steady_rate(found['samples']):,.0f} rows per CPU second")
        wall, cpu = pipeline_rate(model, data, chosen.pipeline_rows)
        print(f"pipeline, batches of 16, {chosen.pipeline_rows:,} rows, once loaded: {wall:,.0f} rows/s, {cpu:,.0f} rows per CPU second")


if __name__ == "__main__":
    main()

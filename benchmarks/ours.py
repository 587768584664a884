"""hubtune itself, through its public door: prepared as a user's run is, then its steps, scored on a few rows only."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measures import BATCH, Steps
from benchmarks.peers import LENGTH, Job, Trained


def hubtune(job: Job, *, strategy: str = "full", options: dict[str, Any] | None = None, **settings: Any) -> Trained:
    """options: of the strategy; settings: of `[train]`."""
    import hubtune
    from hubtune.devices import memory

    # Imported before the clock runs, with all that it imports.
    from hubtune.runs.stages import run_stages  # noqa: F401

    steps = Steps()

    class Clock(hubtune.Callbacks):
        def on_progress(self, units: int, **shown: float) -> None:
            if "loss" in shown:
                steps.mark()

    rows = [{"text": text, "label": label} for text, label in job.rows]
    train = {"batch_size": BATCH, "max_steps": job.steps, "learning_rate": job.lr, "seed": job.seed, "max_length": LENGTH, "keep": "last",
             "early_stopping_patience": 0, "verify": False, "evals_per_epoch": 1, "save_minutes": 1e6, **settings}
    out = tempfile.TemporaryDirectory()
    memory.keep_freed_memory()  # as the command line does
    run = hubtune.train("text-classification", model=job.folder, data={"train": rows, "validation": rows[:32]}, strategy=strategy,
                        out=Path(out.name) / "run", callbacks=Clock(),
                        set={**{f"train.{key}": value for key, value in train.items()},
                             **{f"strategy.{key}": value for key, value in (options or {}).items()}})
    for line in map(json.loads, (Path(out.name) / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()):
        if "grad_norm" in line:
            steps.losses.append(line["loss"])
            steps.norms.append(line["grad_norm"])
            steps.tokens.append(line["tokens"])

    def answers(texts: Sequence[str]) -> list[str]:
        with out:  # the run's folder goes when it has answered
            return [answer["label"] for answer in run.predict(list(texts))]

    return steps, answers

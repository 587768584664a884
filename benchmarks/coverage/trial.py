"""One architecture, one task and one strategy: make a tiny model, train it, and look at what came of it."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import hubtune
from benchmarks.coverage.rows import TASKS
from hubtune.errors import HubtuneError

RATES = {"full": (1e-3, 1e-4), "lora": (5e-3, 5e-4)}
"""Learning rates; the second is tried where the loss did not fall with the first."""
STEPS = 10
SETTINGS = {
    "train.max_steps": STEPS, "train.batch_size": 12, "train.warmup": 0, "train.schedule": "constant", "train.keep": "last",
    "train.precision": "fp32", "train.verify": False, "train.early_stopping_patience": 0, "train.kernels": "plain",
}


def run(task: str, strategy: str, model: Path, out: Path) -> dict[str, Any]:
    """Train a model, with a lower rate where the loss does not fall; returns what happened."""
    for rate in RATES[strategy]:
        found = run_at(rate, task, strategy, model, out)
        if found.get("falls", True):
            break
    return found


def run_at(rate: float, task: str, strategy: str, model: Path, out: Path) -> dict[str, Any]:
    """Train a model; returns what happened, under `state`: trained, refused or failed."""
    rows = TASKS[task][1]()
    start = time.monotonic()
    try:
        done = hubtune.train(task, model=model, data={"train": rows, "validation": rows[:8]}, strategy=strategy, out=out,
                             overwrite=True, set={**SETTINGS, "train.learning_rate": rate})
        found = {"state": "trained", "rate": rate, **seen(done, out, rows)}
    except HubtuneError as error:
        found = {"state": "refused", "reason": without_paths(f"{type(error).__name__}: {error.message}")}
    except Exception as error:  # of any library, for one architecture of many
        found = {"state": "failed", "reason": without_paths(f"{type(error).__name__}: {error}")}
    return {**found, "seconds": round(time.monotonic() - start, 2)}


def without_paths(reason: str) -> str:
    """Return a reason in one line, without folders of this machine and addresses."""
    line = re.sub(r"https?://\S*[\w/]", "the Hub", " ".join(reason.split()))
    return re.sub(r"(?<![\w/])/[\w.+-]+/[\w./+-]*\w", lambda path: path[0].rpartition("/")[2], line)[:300]


def seen(done: Any, out: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what a finished run shows: its losses, its gradients, and whether padding changes its outputs."""
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [line["loss"] for line in lines if "grad_norm" in line]
    config = json.loads((out / "model" / "config.json").read_text(encoding="utf-8"))
    last = min(losses[-3:])  # dropout makes each of them uneven
    return {
        "losses": [round(losses[0], 4), round(last, 4)], "falls": last < losses[0],
        "padding": done.record["compute"]["uniform"], "loads_with": done.record["loads_with"],
        "head": {name: config[name] for name in ("part", "pooling", "states")} if config["model_type"] == "hubtune-head" else None,
        "gradients": gradients(done, rows),
    }


def gradients(done: Any, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return whether a loss of the trained model reaches its embedding and its last linear layer."""
    import torch

    from hubtune.data import encoding
    from hubtune.models import compat

    model, base = done.load_weights()
    encoded = encoding.encode(done.task, rows, base, base.max_length)
    batch = done.task.collate([encoded.examples[0], encoded.examples[1]], base, None)
    model.requires_grad_(True)
    with compat.without_cache(model):
        found = done.task.loss(done.task.forward(model, batch), batch)
        (found[0] if isinstance(found, list) else found).total.backward()

    def reached(module: Any) -> bool:
        return any(weight.grad is not None and bool(weight.grad.abs().sum() > 0) for weight in module.parameters())

    try:
        words = model.get_input_embeddings()
    except (NotImplementedError, AttributeError):
        words = next(part for part in model.modules() if list(part.parameters(recurse=False)))
    layers = [part for part in model.modules() if isinstance(part, torch.nn.Linear | torch.nn.Conv2d)]
    return {"embedding": reached(words), "head": reached(layers[-1])}

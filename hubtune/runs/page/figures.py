"""The figures of a run's page, as the page holds them in JSON: from `run.json`, `log.jsonl` and `report.json`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from hubtune.runs.page import kept

POINTS = 300
"""Points of a curve; more steps than that are averaged."""
STEP = frozenset({"step", "epoch", "lr", "grad_norm", "rows", "tokens", "padded_tokens", "padding", "micro_batches"})
"""Keys of a line of `log.jsonl` about a step that are no loss terms."""


def gather(folder: Path, record: Mapping[str, Any], *, with_rows: bool = True) -> dict[str, Any]:
    """Return all figures of a finished run.

    Returns:
        `headline`, `curves`, `panels`, `lengths`, `reports`, `cost`, and the parts of `run.json` that the page shows as they
        are.
    """
    own = kept.read(folder)
    found = [panel for panel in own.get("panels", ()) if with_rows or panel["kind"] != "rows"]
    split = "test" if "test" in record["metrics"] else "validation"
    return {
        "headline": headline(record, split), "split": split, "unit": own.get("unit", "tokens"),
        "metrics": record["metrics"], "intervals": record.get("intervals", {}),
        "no_intervals": record.get("no_intervals", {}), "baselines": record.get("baselines", {}),
        "curves": curves(folder / "log.jsonl", record), "panels": found,
        "histogram": own.get("lengths"), "lengths": record["lengths"],
        "report": record.get("reports", {}).get(split) or {}, "cost": cost(record),
    }


def headline(record: Mapping[str, Any], split: str) -> dict[str, Any]:
    """Return the score that chose the weights, with its interval and what a constant answer scores."""
    metric, scores = record["task"]["metric"], record["metrics"][split]
    name = metric if metric in scores else next(iter(scores), None)
    return {
        "metric": name, "value": scores.get(name), "split": split,
        "rows": record["data"]["rows"].get(split),
        "interval": record.get("intervals", {}).get(split, {}).get(name),
        "no_interval": record.get("no_intervals", {}).get(split, {}).get(name),
        "baseline": record.get("baselines", {}).get(split, {}).get(name),
    }


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a log; none of a run without one, nor lines that a crash cut off."""
    lines = []
    with contextlib.suppress(OSError):
        for text in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):
                line = json.loads(text)
                if isinstance(line, dict) and "step" in line:
                    lines.append(line)
    return lines


def curves(path: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return losses, metrics, learning rate, padding and throughput by step, and the best step."""
    lines = read_log(path)
    steps = [line for line in lines if "split" not in line]
    validations = [line for line in lines if line.get("split") == "validation"]
    terms = list(dict.fromkeys(key for line in steps for key in line if key not in STEP))
    scores = list(dict.fromkeys(key for line in validations for key in line if key.startswith("validation_")))
    losses = {name for name in scores if name.removeprefix("validation_") in terms}
    return {
        "best_step": record.get("best_step"),
        "loss": {**{f"training {name}": thinned(steps, name) for name in terms},
                 **{name.replace("_", " ", 1): points(validations, name) for name in sorted(losses)}},
        "metrics": {name.removeprefix("validation_"): points(validations, name)
                    for name in scores if name not in losses},
        "learning rate": thinned(steps, "lr"), "padding": thinned(steps, "padding"),
        "throughput": points(validations, "tokens_per_second"),
    }


def points(lines: Sequence[Mapping[str, Any]], key: str) -> list[list[float]]:
    """Return (step, value) of the lines that have a finite value."""
    return [[line["step"], line[key]] for line in lines
            if isinstance(line.get(key), int | float) and isfinite(line[key])]


def thinned(lines: Sequence[Mapping[str, Any]], key: str) -> list[list[float]]:
    """Return at most `POINTS` (step, value): of more, means of neighbours."""
    every = points(lines, key)
    width = -(-len(every) // POINTS) or 1
    if width == 1:
        return every
    parts = (every[start:start + width] for start in range(0, len(every), width))
    return [[part[-1][0], sum(value for _, value in part) / len(part)] for part in parts]


def cost(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was expected of the run's cost and what happened, with the seconds of its stages."""
    return {"seconds": record.get("seconds"), "steps": record.get("steps"), "epochs": record.get("epochs"),
            "planned_steps": record.get("plan", {}).get("steps"), "stopped_early": record.get("stopped_early"),
            "expected": record.get("expected") or {}, "happened": record.get("happened") or {},
            "timings": dict(record.get("timings") or {})}

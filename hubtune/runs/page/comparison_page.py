"""Write the page of a comparison: what differs, paired differences, and the curves of the runs over each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hubtune.record import read_finished
from hubtune.runs.page import drawn, figures, page, plots
from hubtune.runs.page.plots import Plot


def write(path: Path, found: Mapping[str, Any]) -> Path:
    """Write the page of what `hubtune compare --json` prints; returns the path."""
    runs = [run["run"] for run in found["runs"]]
    names = distinct(runs)
    curves = {names[run]: figures.curves(Path(run) / "log.jsonl", read_finished(Path(run))) for run in runs}
    metrics = list(dict.fromkeys(name for run in found["runs"] for name in run["metrics"]))
    return page.save(path, page.render("compare.html", {
        "title": f"{len(runs)} runs beside each other", "figures": {**found, "curves": curves},
        "split": found["split"], "same_rows": found["same_rows"],
        "columns": ["run", *found["differing"], *metrics, "seconds"],
        "rows": [[names[run["run"]], *(page.shown(run["settings"][key]) for key in found["differing"]),
                  *(score(run, name) for name in metrics), f"{run['seconds']:.0f}"] for run in found["runs"]],
        "notes": [f"{names[run['run']]}: {warning}." for run in found["runs"] for warning in run["warnings"]],
        "pairs": [{**pair, "name": f"{names[pair['run']]} against {names[pair['against']]}"} for pair in found["pairs"]],
        "differences": differences(found["pairs"], names), "plots": overlaid(curves),
    }))


def distinct(runs: Sequence[str]) -> dict[str, str]:
    """Return short names of folders: their last parts, as many as tell them apart."""
    parts = {run: Path(run).parts for run in runs}
    for count in range(1, max(map(len, parts.values())) + 1):
        names = {run: "/".join(part[-count:]) for run, part in parts.items()}
        if len(set(names.values())) == len(names):
            return names
    return {run: run for run in runs}


def score(run: Mapping[str, Any], name: str) -> str:
    """Format a score with its interval; empty where the run has none of this name."""
    if name not in run["metrics"]:
        return ""
    bounds = run["intervals"].get(name)
    return page.number(run["metrics"][name]) + (f" ({page.number(bounds[0])} to {page.number(bounds[1])})" if bounds else "")


def differences(pairs: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the drawing of paired differences; None where no pair has one."""
    known = {names[pair["run"]]: pair["difference"] for pair in pairs
             if pair.get("difference") and pair["difference"]["value"] is not None}
    if not known:
        return None
    metric, first = next(iter(known.values()))["metric"], names[pairs[0]["against"]]
    title, text = f"Difference of {metric}", f"Each run minus {first} on the same rows, with 95% intervals; above 0 is better."
    values = {name: (found["value"], found["interval"]) for name, found in known.items()}
    rows = [[name, f"{value:+.4f}", f"{bounds[0]:+.4f} to {bounds[1]:+.4f}" if bounds else "none"]
            for name, (value, bounds) in values.items()]
    return {"kind": "bars", "title": title, "text": text, "columns": ["run", "difference", "95% interval"], "rows": rows,
            "svg": drawn.safe(plots.intervals("differences", title, text, metric, values))}


def overlaid(curves: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the drawings of each loss and metric that runs have, one curve for each run."""
    made = []
    for part in ("loss", "metrics"):
        for number, key in enumerate(dict.fromkeys(key for found in curves.values() for key, line in found[part].items() if line)):
            lines = {name: found[part][key] for name, found in curves.items() if found[part].get(key)}
            title = key if part == "loss" else f"validation {key}"
            made.append(drawn.drawing(f"{part}-{number}", title.capitalize(), [Plot("step", key, lines)], None))
    return made

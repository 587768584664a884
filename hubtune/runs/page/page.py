"""Write `report.html`: one page of a run, without scripts and network, from files of its folder alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hubtune.callbacks import Callbacks
from hubtune.runs.page import drawn, figures, plots
from hubtune.runs.page.kept import PAGE

TEMPLATES = Path(__file__).parent / "templates"
MISSING = "Its curves are tables, since matplotlib is not installed: pip install 'hubtune[report]', then: hubtune report RUN"
FIRST = 20
"""Classes in the table; the others are folded away."""


def write(folder: Path, record: Mapping[str, Any], *, with_rows: bool = True) -> Path:
    """Write the page of a finished run, atomically.

    Args:
        record: contents of its `run.json`.
        with_rows: show the rows that the run kept.
    """
    found = figures.gather(folder, record, with_rows=with_rows)
    return save(folder / PAGE, render("run.html", {"figures": found, **contents(record, found)}))


def write_if_possible(folder: Path, record: Mapping[str, Any], callbacks: Callbacks) -> None:
    """Write the page of a run that has ended; a run whose page fails is finished all the same, and says why."""
    try:
        write(folder, record)
    except Exception as error:
        callbacks.on_warning(f"the page of the run was not written: {type(error).__name__}: {error}. "
                             f"Try again with: hubtune report {folder}")


def save(path: Path, text: str) -> Path:
    """Write a page atomically."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)
    return path


def short_html(folder: Path, record: Mapping[str, Any]) -> str:
    """Return a run as a notebook shows it: its scores, what it cost, and a link to its page."""
    split = "test" if "test" in record["metrics"] else "validation"
    found = {name: {split: record.get(name, {}).get(split, {})} for name in ("metrics", "intervals", "no_intervals", "baselines")}
    report = folder / PAGE
    return render("notebook.html", {
        "record": record, "split": split, "scores": scores(found), "rows": record["data"]["rows"].get(split),
        "folder": str(folder), "report": report.as_posix() if report.is_file() else None})


def render(template: str, values: Mapping[str, Any]) -> str:
    """Render a template, in which every text is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True)
    missing = "" if plots.is_available() else MISSING
    return environment.get_template(template).render(
        version=version("hubtune"), missing=missing, number=number, **values)


def contents(record: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the template shows of a run."""
    shown_rows = [panel for panel in found["panels"] if panel["kind"] == "rows" and panel["rows"]]
    others = [panel for panel in found["panels"] if panel["kind"] != "rows"]
    base = record["base"]
    return {
        "title": f"{record['name']}: {record['task']['name']}", "record": record, "head": found["headline"],
        "scores": scores(found), "warnings": warnings(record),
        "plots": drawn.training(found["curves"], record["task"]["metric"], found["unit"]),
        "panels": [drawn.panel(panel, number) for number, panel in enumerate(others)],
        "classes": classes(found["report"]), "shown": shown_rows,
        "rows": [[split, f"{count:,}"] for split, count in record["data"]["rows"].items()],
        "lengths": lengths(found["lengths"], found["unit"]),
        "histogram": drawn.lengths(found["histogram"], found["unit"]),
        "findings": record["data"].get("checks", {}).get("findings", []), "costs": costs(found["cost"], found["unit"]),
        "timings": [[name.replace("_", " "), f"{seconds:.1f}"] for name, seconds in found["cost"]["timings"].items()],
        "provenance": provenance(record),
        "link": None if base["local"] else f"https://huggingface.co/{base['repo']}/tree/{base['commit']}",
        "settings": settings(record),
    }


def number(value: Any) -> str:
    """Format a score."""
    return "none" if value is None else f"{value:.4f}"


def scores(found: Mapping[str, Any]) -> list[list[str]]:
    """Return the table of all scores."""
    table = []
    for split, values in found["metrics"].items():
        for name, value in values.items():
            bounds = found["intervals"].get(split, {}).get(name)
            reason = found["no_intervals"].get(split, {}).get(name)
            constant = found["baselines"].get(split, {}).get(name)
            table.append([
                name, split, number(value),
                f"{number(bounds[0])} to {number(bounds[1])}" if bounds else f"none: {reason}" if reason else "",
                f"{number(constant['value'])} (always {constant['answer']})" if constant else ""])
    return table


def warnings(record: Mapping[str, Any]) -> list[str]:
    """Return the sentences that scores have to be read with."""
    found = [f"On {split}: {text}." for split, texts in record.get("score_warnings", {}).items() for text in texts]
    return [*found, *record.get("warnings", []), *(record.get("decisions") or {}).get("notes", [])]


def classes(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the task's report as a table per class: of many classes those with the lowest first value first."""
    if len(report) == 1 and isinstance(next(iter(report.values())), dict):
        inner = next(iter(report.values()))
        if inner and not any(isinstance(value, dict) for value in inner.values()):
            report = {name: {next(iter(report)): value} for name, value in inner.items()}
    tables = {name: value for name, value in report.items() if isinstance(value, dict)}
    single = {name: value for name, value in report.items() if isinstance(value, int | float)}
    columns = list(dict.fromkeys(key for value in tables.values() for key, item in value.items()
                                 if isinstance(item, int | float)))
    if not columns and not single:
        return None
    key = "f1-score" if "f1-score" in columns else "f1" if "f1" in columns else None
    ordered = sorted(tables, key=lambda name: tables[name].get(key, 0.0)) if key and len(tables) > FIRST else list(tables)
    rows = [[name, *(cell(tables[name].get(column), column) for column in columns)] for name in ordered]
    return {"columns": ["class", *columns], "rows": rows[:FIRST], "more": rows[FIRST:],
            "single": [f"{name} {cell(value, name)}" for name, value in single.items()]}


def cell(value: Any, column: str) -> str:
    """Format a figure of a table; counts are whole."""
    if not isinstance(value, int | float):
        return ""
    return f"{value:,.0f}" if column == "support" else number(value)


def lengths(found: Mapping[str, Any], unit: str) -> str:
    """Say how long the training rows are, and what was cut."""
    text = f"Median {found['median']:,} {unit}, longest {found['longest']:,}. "
    if not found["rows_cut"]:
        return f"{text}No training row was cut."
    return (f"{text}{found['rows_cut']:,} of {found['rows']:,} training rows were cut at {found['max_length']:,} {unit}: "
            f"{found['tokens_cut']:,} of {found['tokens']:,} {unit} are lost.")


def costs(found: Mapping[str, Any], unit: str) -> list[list[str]]:
    """Return the table of costs, expected before step 0 and measured."""
    expected, happened = found["expected"], found["happened"]
    memory = [f"{part['peak_memory_bytes'] / 1e9:.2f} GB" if part.get("peak_memory_bytes") else "" for part in (expected, happened)]
    table = [
        ["steps", str(found["planned_steps"] or ""), f"{found['steps']}{' (stopped early)' if found['stopped_early'] else ''}"],
        ["seconds of training", "", f"{found['seconds']:,.1f}"], ["peak memory", *memory]]
    if happened.get("tokens_per_second"):
        table += [[f"{unit} a second", "", f"{happened['tokens_per_second']:,.0f}"], ["padding", "", f"{happened['padding']:.1%}"]]
    return table


def provenance(record: Mapping[str, Any]) -> list[list[str]]:
    """Return where the model and the data come from, and what was proven."""
    base, data, proof = record["base"], record["data"], record.get("proof")
    compute, published = record.get("compute") or {}, record.get("published") or {}
    table = [
        ["base model", base["repo"]], ["its commit", base["commit"]], ["data", data["name"]],
        ["fingerprint of the data", data["fingerprint"]], ["computed", f"{compute.get('precision')} on {compute.get('device')}"],
        ["proof", f"the saved files gave the trained model's outputs on {proof['examples']} examples" if proof
         else "the saved files were not compared with the trained model"]]
    if data.get("commit"):
        table.append(["commit of the data", data["commit"]])
    if published.get("repo"):
        table.append(["published", f"{published['repo']} at {published['commit']}"])
    return table + [[name, text] for name, text in record.get("versions", {}).items()]


def settings(record: Mapping[str, Any]) -> list[list[str]]:
    """Return the recipe's keys with the values that the run had."""
    tables = {**record["recipe"], "train": record["settings"]}
    return [[f"{table}.{key}", shown(value)] for table, values in tables.items() for key, value in values.items()]


def shown(value: Any) -> str:
    """Format a setting."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value))
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)

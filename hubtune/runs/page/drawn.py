"""Drawings of a page, each with a sentence and a table that say the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hubtune.runs.page import plots
from hubtune.runs.page.plots import Plot

TABLE = 12
"""Points of a curve in its table."""
WHOLE_MATRIX = 12
"""Labels up to which the whole matrix is shown."""
CONFUSED = 15
"""Mistakes that are listed of larger ones."""


def training(curves: Mapping[str, Any], metric: str, unit: str) -> list[dict[str, Any]]:
    """Return the drawings of a training: losses, the metrics, and how it went."""
    best = curves["best_step"]
    marked = None if best is None else (best, "best")
    made = []
    losses = {name: line for name, line in curves["loss"].items() if line}
    if losses:
        made.append(drawing("loss", "Loss", [Plot("step", "loss", losses, marked)], best))
    scores = {name: line for name, line in curves["metrics"].items() if line}
    chosen = {metric: scores[metric]} if metric in scores else dict(list(scores.items())[:3])
    if chosen:
        made.append(drawing("metric", "Validation metric", [Plot("step", " ".join(chosen) if len(chosen) == 1 else "score",
                                                                 chosen, marked)], best))
    parts = [Plot("step", name, {label: curves[key]}) for name, label, key in (
        ("rate", "learning rate", "learning rate"), ("padding", "padding", "padding"),
        (f"{unit}/s", f"{unit} a second", "throughput")) if curves[key]]
    if parts:
        made.append(drawing("progress", "Learning rate, padding and throughput", parts, None))
    return made


def drawing(name: str, title: str, parts: Sequence[Plot], best: int | None) -> dict[str, Any]:
    """Return curves as a drawing, with the sentence and the table that say the same."""
    lines = {label: line for part in parts for label, line in part.lines.items()}
    said = [f"{label} from {short(line[0][1])} to {short(line[-1][1])}" for label, line in lines.items()]
    text = f"By {parts[-1].x}: {'; '.join(said)}." + (f" The best step is {best}." if best else "")
    places = sorted({x for line in lines.values() for x, _ in picked(line)})
    if len(places) > 2 * TABLE:
        places = [x for x, _ in picked([(x, 0) for x in places])]
    values: dict[str, dict[float, float]] = {label: {place: y for place, y in line} for label, line in lines.items()}  # noqa: C416
    rows = [[short(x), *(short(values[label].get(x)) for label in lines)] for x in places]
    return {"kind": "lines", "title": title, "text": text, "svg": safe(plots.curves(name, title, text, parts)),
            "columns": [parts[-1].x, *lines], "rows": rows}


def safe(svg: str) -> Any:
    """Mark a drawing of our own as a part of the page; its texts are escaped already."""
    from markupsafe import Markup

    return Markup(svg)


def picked(line: Sequence[Sequence[float]]) -> Sequence[Sequence[float]]:
    """Return some points of a curve, its ends among them."""
    if len(line) <= TABLE:
        return line
    return [line[round(number * (len(line) - 1) / (TABLE - 1))] for number in range(TABLE)]


def short(value: Any) -> str:
    """Format a number by its size."""
    if value is None:
        return ""
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 1000 else f"{value:.4g}"


def panel(found: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Return a panel of the task as the page shows it."""
    if found["kind"] == "matrix":
        return {**found, **matrix(found["labels"], found["cells"])}
    name, note = f"panel-{number}", found["note"]
    if found["kind"] == "lines":
        plot = Plot(found["x"], found["y"], found["lines"], diagonal=found["diagonal"])
        made = drawing(name, found["title"], [plot], None) if any(found["lines"].values()) else nothing(found["title"])
        return {**made, "text": note or made["text"]}
    series = found["bars"]
    names = list(dict.fromkeys(category for values in series.values() for category in values))
    said = "; ".join(f"{label}: " + ", ".join(f"{name} {short(value)}" for name, value in values.items())
                     for label, values in series.items())
    svg = plots.bars(name, found["title"], f"{note} {said}", found["unit"], series) if names else ""
    return {"kind": "bars", "title": found["title"], "text": note or f"In {found['unit']}.", "svg": safe(svg),
            "columns": ["category", *series], "rows": [[name, *(short(values.get(name)) for values in series.values())] for name in names]}


def nothing(title: str) -> dict[str, Any]:
    """Return a drawing without a curve."""
    return {"kind": "lines", "title": title, "text": "There is nothing to draw.", "svg": "", "columns": ["point"], "rows": []}


def matrix(labels: Sequence[str], cells: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Return the whole matrix of few labels; of many the most frequent mistakes, with another title."""
    totals = [0] * len(labels)
    for right, _, count in cells:
        totals[right] += count
    if len(labels) <= WHOLE_MATRIX:
        full = [[0] * len(labels) for _ in labels]
        for right, given, count in cells:
            full[right][given] += count
        return {"full": full, "totals": totals, "confused": []}
    wrong = sorted((cell for cell in cells if cell[0] != cell[1]), key=lambda cell: -cell[2])[:CONFUSED]
    return {"full": None, "totals": totals, "title": f"Most confused of {len(labels)} labels", "confused": [
        [labels[right], labels[given], str(count), f"{count / totals[right]:.0%}"] for right, given, count in wrong]}


def lengths(found: Mapping[str, Any] | None, unit: str) -> dict[str, Any] | None:
    """Return the histogram of the lengths of training rows, as they were trained on."""
    if not found or not found["counts"]:
        return None
    edges, counts = found["edges"], found["counts"]
    text = f"Training rows by length in {unit}, from {edges[0]:,} to {edges[-1] - 1:,}, as they were trained on."
    rows = [[f"{low:,} to {high - 1:,}", f"{count:,}"]
            for low, high, count in zip(edges, edges[1:], counts, strict=False) if count]
    title = "Lengths"
    return {"kind": "bars", "title": title, "text": text, "columns": [unit, "rows"], "rows": rows,
            "svg": safe(plots.histogram("lengths", title, text, unit, edges, counts))}


"""What a person sees: bars and lines on stderr while work goes on, tables on stdout when it is done."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from hubtune.callbacks import Callbacks
from hubtune.errors import HubtuneError


class ConsoleCallbacks(Callbacks):
    """Progress callbacks that write to stderr: bars on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.progress: Progress | None = None
        self.bar: Any = None

    def on_info(self, text: str) -> None:
        """A line for the user."""
        self.console.print(escape(text), style="dim" if self.console.is_terminal else None)

    def on_warning(self, text: str) -> None:
        """A line that the user should not miss."""
        self.console.print(f"[yellow]warning:[/yellow] {escape(text)}")

    def on_progress_start(self, description: str, total: int) -> None:
        """A bar of so many units."""
        self.on_progress_end()
        if self.console.is_terminal:
            self.progress = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                TextColumn("{task.fields[shown]}"), console=self.console, transient=True,
            )
            self.bar = self.progress.add_task(description, total=total, shown="")
            self.progress.start()

    def on_progress(self, units: int, **metrics: float) -> None:
        """So many units more."""
        if self.progress is not None:
            text = " ".join(f"{name} {value:.4f}" for name, value in metrics.items())
            self.progress.update(self.bar, advance=units, shown=text)

    def on_progress_end(self) -> None:
        """The bar goes away."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None

    def on_evaluate(self, record: dict[str, Any], best: bool) -> None:
        """One line of the validation curve."""
        scores = "  ".join(
            f"{name.removeprefix('validation_')} {value:.4f}" for name, value in record.items()
            if name.startswith("validation_")
        )
        self.console.print(f"epoch {record['epoch']:g}  {scores}{'  (best so far)' if best else ''}")


def show_error(error: HubtuneError) -> None:
    """One block of text, no traceback."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    where = f"{error.where}: " if error.where else ""
    console.print(f"[red]error:[/red] {escape(where + error.message)}")
    if error.hint:
        console.print(escape(error.hint))


def out(text: str = "") -> None:
    """A line on stdout."""
    sys.stdout.write(text + "\n")


def table(columns: list[str], rows: list[list[object]], title: str | None = None) -> None:
    """A table on stdout, as wide as the terminal (or as its text, in a pipe)."""
    console = Console(highlight=False)
    made = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        made.add_row(*(escape("" if cell is None else str(cell)) for cell in row))
    if not console.is_terminal:
        console.width = 200
    console.print(made)


def metrics(found: dict[str, dict[str, float]], intervals: dict[str, dict[str, list[float]]]) -> None:
    """Metrics by split, with their intervals."""
    rows: list[list[object]] = []
    for split, values in found.items():
        for name, value in values.items():
            found_interval = intervals.get(split, {}).get(name)
            rows.append([split, name, f"{value:.4f}", "{:.4f} to {:.4f}".format(*found_interval) if found_interval else ""])
    table(["split", "metric", "value", "95% interval"], rows)


def report(found: dict[str, Any]) -> None:
    """A per-class report, as scikit-learn's `classification_report` prints it."""
    rows: list[list[object]] = []
    for name, values in found.items():
        if isinstance(values, dict):
            cells = [f"{values[key]:.4f}" for key in ("precision", "recall", "f1-score")]
            rows.append([name, *cells, int(values["support"])])
        else:
            rows.append([name, "", "", f"{values:.4f}", ""])
    if rows:
        table(["", "precision", "recall", "f1-score", "support"], rows)


def checked(found: dict[str, Any]) -> None:
    """What `hubtune train --check` has found."""
    plan, settings = found["plan"], found["settings"]
    out(f"Everything fits. Training would take {plan['steps']} steps of {settings['batch_size']} rows "
        f"({plan['steps_an_epoch']} an epoch) at a rate of {settings['learning_rate']:g}.")
    labels = ", ".join(found["facts"].get("labels", []))  # of a task that has any
    out(f"model: {found['base']['repo']} ({found['parameters']['total']:,} parameters), strategy: "
        f"{found['strategy']['name']}" + (f", labels: {labels}" if labels else ""))


def finished(run: Any) -> None:
    """What a finished training has come to, and what can be done with it."""
    said, record = run.summary(), run.record
    metrics(said["metrics"], record["intervals"])
    out(f"\nrun:    {said['run']}   ({said['steps']} steps, {said['seconds']:.0f} s)")
    out(f"pace:   {pace(record['happened'], run.task.unit)}")
    proven = "proven: a fresh process gives the same outputs" if record["proof"] else "not proven: train.verify is off"
    out(f"model:  {said['model']}   ({proven})")
    if said["published"]:
        out(f"hub:    {said['published']['pr'] or said['published']['url']}")
    else:
        given = {"patches": "image.png", "frames": "sound.wav"}.get(run.task.unit, '"some text"')
        out(f"next:   hubtune predict {said['run']} {given}\n        hubtune publish {said['run']} NAME/MODEL --dry-run")


def costs(found: dict[str, Any]) -> None:
    """What `hubtune plan` has found."""
    lines = (
        ("steps", f"{found['steps']} of {found['batch_size']} rows, {found['steps_an_epoch']} an epoch"),
        ("time", f"{span(found['seconds'])}: {span(found['seconds_an_epoch'])} an epoch, {span(found['seconds_a_validation'])} a validation"),
        ("memory", f"{found['peak_memory_bytes'] / 1e9:.1f} GB at most, on {found['device']} in {found['precision']}"),
        ("disk", f"{found['disk_bytes'] / 1e9:.1f} GB at most while it trains"),
        ("upload", f"{found['upload_bytes'] / 1e6:.1f} MB"),
        ("learning", f"{found['parameters']['trainable']:,} of {found['parameters']['total']:,} parameters"),
    )
    for name, said in lines:
        out(f"{name:9} {said}")


def pace(found: dict[str, Any], unit: str) -> str:
    """What the steps have read, and how fast."""
    return f"{found['tokens_per_second']:,.0f} {unit} a second; of what was computed, {found['padding']:.0%} was padding"


def run(found: dict[str, Any]) -> None:
    """What `hubtune show` says of a run."""
    compute, settings = found["compute"] or {}, found["settings"]
    out(f"run       {found['run']}: {found['state']}")
    out(f"what      {found['task']} by {found['strategy']}, on {found['base']['repo']} at {found['base']['commit'][:19]}")
    out(f"steps     {found['plan']['steps']} of {settings['batch_size']} rows at most, {found['plan']['steps_an_epoch']} an epoch")
    if compute:
        again = "; activations are computed again" if compute["recompute"] else ""
        out(f"compute   {compute['precision']} on {compute['device']} ({compute['why']}); a micro-batch costs {compute['overhead']} tokens beside "
            f"its own, and has {compute['limit']} at most{again}")
    expected, happened = found["expected"] or {}, found["happened"] or {}
    out()
    table(["", "expected", "happened"], [
        ["seconds an epoch", *(said.get("seconds_an_epoch") for said in (expected, happened))],
        ["memory at most", *(f"{said['peak_memory_bytes'] / 1e9:.2f} GB" if said.get("peak_memory_bytes") else None for said in (expected, happened))],
        ["tokens a second", None, happened.get("tokens_per_second")],
        ["padding", None, f"{happened['padding']:.1%}" if happened else None],
    ])
    if found["metrics"]:
        out()
        metrics(found["metrics"], {})


def model(found: dict[str, Any]) -> None:
    """What `hubtune show` says of a model."""
    for key, value in found.items():
        if key == "weights":
            value = ", ".join(f"{w['format']} ({w['files']} files, {w['bytes']:,} bytes)" for w in value)
        if key not in ("tasks", "strategies"):
            out(f"{key:14}{', '.join(map(str, value)) if isinstance(value, list) else value}")
    for kind in ("tasks", "strategies"):
        out()
        table([kind, "fits", "reason"], [[f["name"], "yes" if f["fits"] else "no", f["reason"]] for f in found[kind]])


def span(seconds: float) -> str:
    """A time as people say it."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

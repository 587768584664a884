"""Terminal output: progress and messages on stderr, results on stdout."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from hubtune.callbacks import Callbacks
from hubtune.cli.output import printable
from hubtune.errors import HubtuneError


class ConsoleCallbacks(Callbacks):
    """Progress callbacks that write to stderr: bars on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.progress: Progress | None = None
        self.bar: Any = None

    def on_info(self, text: str) -> None:
        """Print a line."""
        self.console.print(safe(text), style="dim" if self.console.is_terminal else None)

    def on_warning(self, text: str) -> None:
        """Print a warning."""
        self.console.print(f"[yellow]warning:[/yellow] {safe(text)}")

    def on_progress_start(self, description: str, total: int) -> None:
        """Show a progress bar; without a terminal, a line."""
        self.on_progress_end()
        if self.console.is_terminal:
            self.progress = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                TextColumn("{task.fields[shown]}"), console=self.console, transient=True,
            )
            self.bar = self.progress.add_task(description, total=total or None, shown="")
            self.progress.start()
        else:
            self.console.print(safe(description))

    def on_progress(self, units: int, **metrics: float) -> None:
        """Advance the progress bar."""
        if self.progress is not None:
            text = " ".join(f"{name} {value:.4f}" for name, value in metrics.items())
            self.progress.update(self.bar, advance=units, shown=text)

    def on_progress_end(self) -> None:
        """Remove the progress bar."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None

    def on_evaluate(self, record: dict[str, Any], best: bool) -> None:
        """Print the scores of a validation."""
        scores = "  ".join(
            f"{name.removeprefix('validation_')} {value:.4f}" for name, value in record.items()
            if name.startswith("validation_")
        )
        self.console.print(f"epoch {record['epoch']:g}  {scores}{'  (best)' if best else ''}")


def safe(text: str) -> str:
    """Return a text without control characters, and without what rich would read as markup."""
    return escape(printable(text))


def show_error(error: HubtuneError) -> None:
    """Print an error as one block, without a traceback."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    where = f"{error.where}: " if error.where else ""
    console.print(f"[red]error:[/red] {safe(where + error.message)}")
    if error.hint:
        console.print(safe(error.hint))


def out(text: str = "") -> None:
    """Print a line on stdout, without control characters of labels and names."""
    sys.stdout.write(printable(text) + "\n")


def table(columns: list[str], rows: list[list[object]], title: str | None = None) -> None:
    """Print a table on stdout, as wide as the terminal (200 columns in a pipe)."""
    console = Console(highlight=False)
    made = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        made.add_row(*(safe("" if cell is None else str(cell)) for cell in row))
    if not console.is_terminal:
        console.width = 200
    console.print(made)


def metrics(record: Mapping[str, Any]) -> None:
    """Print metrics by split, with their 95% intervals (or why there is none) and the scores of a constant answer.

    record: with `metrics`, and `intervals`, `no_intervals` and `baselines` where they are known, each by split.
    """
    found = {key: record.get(key) or {} for key in ("metrics", "intervals", "no_intervals", "baselines")}
    with_baselines = any(found["baselines"].values())
    rows: list[list[object]] = []
    for split, values in found["metrics"].items():
        for name, value in values.items():
            interval, reason = (found[key].get(split, {}).get(name) for key in ("intervals", "no_intervals"))
            constant = found["baselines"].get(split, {}).get(name)
            rows.append([
                split, name, f"{value:.4f}",
                "{:.4f} to {:.4f}".format(*interval) if interval else f"none: {reason}" if reason else "",
                *([f"{constant['value']:.4f} (always {constant['answer']})" if constant else ""] if with_baselines else []),
            ])
    table(["split", "metric", "value", "95% interval", *(["baseline"] if with_baselines else [])], rows)


def report(found: dict[str, Any]) -> None:
    """Print a report per class, as scikit-learn's `classification_report` does."""
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
    """Print the result of `hubtune train --check`."""
    plan, settings = found["plan"], found["settings"]
    out(f"Everything fits: {steps_text(plan['steps'], settings['batch_size'], plan['steps_an_epoch'])}, "
        f"learning rate {settings['learning_rate']:g}.")
    labels = ", ".join(found["facts"].get("labels", []))  # of a task that has any
    out(f"model: {found['base']['repo']} ({found['parameters']['total']:,} parameters), strategy: "
        f"{found['strategy']['name']}" + (f", labels: {labels}" if labels else ""))


def finished(run: Any) -> None:
    """Print the result of a finished training, and the commands that use it."""
    summary, record = run.summary(), run.record
    metrics(record)
    out(f"\nrun:         {summary['run']} ({summary['steps']} steps, {summary['seconds']:.0f} s)")
    out(f"throughput:  {throughput(record['happened'], run.task.unit)}")
    verified = "saved files verified in a clean process" if record["proof"] else "not verified: train.verify=false"
    out(f"model:       {summary['model']} ({verified})")
    if summary.get("report"):
        out(f"report:      {summary['report']}")
    if summary["published"]:
        out(f"hub:         {summary['published']['pr'] or summary['published']['url']}")
        return
    example = {"patches": "image.png", "frames": "sound.wav"}.get(run.task.unit, "some text")
    trust = ["--trust-code", summary["run"]] if run.needs_code() else []
    out(f"next:        {shlex.join(['hubtune', 'predict', summary['run'], *trust, example])}")
    out(f"             {shlex.join(['hubtune', 'publish', summary['run'], 'NAMESPACE/NAME', '--dry-run'])}")


def costs(found: dict[str, Any]) -> None:
    """Print the result of `hubtune plan`."""
    lines = (
        ("steps", steps_text(found["steps"], found["batch_size"], found["steps_an_epoch"])),
        ("time", f"{span(found['seconds'])} ({span(found['seconds_an_epoch'])} per epoch, {span(found['seconds_a_validation'])} per validation)"),
        ("memory", f"{found['peak_memory_bytes'] / 1e9:.1f} GB peak, on {found['device']} in {found['precision']}"),
        ("disk", f"{found['disk_bytes'] / 1e9:.1f} GB peak, while training"),
        ("upload", f"{found['upload_bytes'] / 1e6:.1f} MB"),
        ("trainable", f"{found['parameters']['trainable']:,} of {found['parameters']['total']:,} parameters"),
    )
    for name, text in lines:
        out(f"{name:10} {text}")


def steps_text(steps: int, batch_size: int, steps_per_epoch: int) -> str:
    """Describe the length of a training: `95 steps, batch size 16, 19 steps per epoch`."""
    return f"{steps} steps, batch size {batch_size}, {steps_per_epoch} steps per epoch"


def throughput(found: dict[str, Any], unit: str) -> str:
    """Describe the speed of a training: `6,008 tokens/s (9% padding)`."""
    return f"{found['tokens_per_second']:,.0f} {unit}/s ({found['padding']:.0%} padding)"


def run(found: dict[str, Any]) -> None:
    """Print `hubtune show` of a run."""
    compute, settings = found["compute"] or {}, found["settings"]
    out(f"run       {found['run']} ({found['state']})")
    out(f"task      {found['task']} with {found['strategy']}, on {found['base']['repo']} at {found['base']['commit'][:19]}")
    out(f"steps     {steps_text(found['plan']['steps'], settings['batch_size'], found['plan']['steps_an_epoch'])}")
    if compute:
        again = ", gradient checkpointing" if compute["recompute"] else ""
        out(f"compute   {compute['precision']} on {compute['device']} ({compute['why']}), micro-batches of at most {compute['limit']} tokens{again}")
    figures = run_figures(found["expected"] or {}, found["happened"] or {})
    if figures:
        out()
    for name, text in figures.items():
        out(f"{name:18} {text}")
    if found["timings"]:
        stages = (f"{name.replace('_', ' ')} {seconds:.1f} s" for name, seconds in found["timings"].items())
        out(f"{'time':18} {', '.join(stages)}")
    if found["metrics"]:
        out()
        metrics(found)


FIGURES: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("seconds per epoch", "seconds_an_epoch", str), ("tokens/s", "tokens_per_second", str),
    ("padding", "padding", "{:.1%}".format),
    ("peak memory", "peak_memory_bytes", lambda number: f"{number / 1e9:.2f} GB"),
)
"""Figures of a run: name, key in `run.json`, format."""


def run_figures(expected: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, str]:
    """Describe the figures that are known of a run, measured and expected before step 0.

    Only memory is estimated before step 0; records of 0.1 hold an estimate of the time too.
    """
    figures = {}
    for name, key, text in FIGURES:
        parts = [text(measured[key])] if measured.get(key) is not None else []
        if expected.get(key) is not None:
            parts.append(f"(expected {text(expected[key])})")
        if parts:
            figures[name] = " ".join(parts)
    return figures


MEMORY_USES = {"predict": "to predict", "train_all": "to train all weights (fp32, AdamW)",
               "train_frozen": "over frozen weights (head, lora)"}


def model(found: dict[str, Any]) -> None:
    """Print `hubtune show` of a model."""
    for key, value in found.items():
        if key == "weights":
            value = ", ".join(f"{w['format']} ({w['files']} files, {w['bytes']:,} bytes)" for w in value)
        if key == "memory" and value:
            parts = [f"{text} {value[name] / 1e9:.2f} GB" for name, text in MEMORY_USES.items()]
            value = f"{'; '.join(parts)}; activations come on top"
        if key not in ("tasks", "strategies") and not (key == "adapter" and value is None):
            out(f"{key:14}{', '.join(map(str, value)) if isinstance(value, list) else value}")
    for kind in ("tasks", "strategies"):
        out()
        table([kind, "fits", "reason"], [[f["name"], "yes" if f["fits"] else "no", f["reason"] or f.get("head")] for f in found[kind]])


def span(seconds: float) -> str:
    """Format a duration: `4.2 s`, `12 min`, `3.1 h`."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

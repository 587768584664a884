"""Progress callbacks."""

from __future__ import annotations

import sys
import time
from typing import Any


class Callbacks:
    """Base class of progress callbacks; every method does nothing.

    Pass an instance as `callbacks=`.
    """

    def on_info(self, text: str) -> None:
        """Handle a line of information."""

    def on_warning(self, text: str) -> None:
        """Handle a warning."""

    def on_progress_start(self, description: str, total: int) -> None:
        """Handle the start of a stage such as "training".

        total: its units, such as steps or examples; 0: not known, as of a stream.
        """

    def on_progress(self, units: int, **metrics: float) -> None:
        """Handle progress.

        units: newly completed ones. metrics: current values, such as the loss.
        """

    def on_progress_end(self) -> None:
        """Handle the end of the stage."""

    def on_evaluate(self, record: dict[str, Any], best: bool) -> None:
        """Handle a validation. record: its line of `log.jsonl`. best: the best weights so far."""


class RecordingCallbacks(Callbacks):
    """Forward everything to other callbacks, and keep the warnings for `run.json`."""

    def __init__(self, callbacks: Callbacks) -> None:
        self.callbacks = callbacks
        self.warnings: list[str] = []

    def on_info(self, text: str) -> None:
        self.callbacks.on_info(text)

    def on_warning(self, text: str) -> None:
        self.warnings.append(text)
        self.callbacks.on_warning(text)

    def on_progress_start(self, description: str, total: int) -> None:
        self.callbacks.on_progress_start(description, total)

    def on_progress(self, units: int, **metrics: float) -> None:
        self.callbacks.on_progress(units, **metrics)

    def on_progress_end(self) -> None:
        self.callbacks.on_progress_end()

    def on_evaluate(self, record: dict[str, Any], best: bool) -> None:
        self.callbacks.on_evaluate(record, best)


UPDATE = 0.25
"""Seconds between two states of a notebook's bar: each is a message to the browser, which keeps some of them."""


class NotebookCallbacks(Callbacks):
    """Progress in a notebook: a bar of HTML for each stage, which needs no widgets, and lines below it."""

    def __init__(self) -> None:
        self.handle: Any = None
        self.description, self.done, self.total = "", 0, 0
        self.metrics, self.drawn = "", 0.0

    def on_info(self, text: str) -> None:
        print(text)

    def on_warning(self, text: str) -> None:
        print(f"warning: {text}")

    def on_progress_start(self, description: str, total: int) -> None:
        from IPython.display import HTML, display

        self.on_progress_end()
        self.description, self.done, self.total, self.metrics = description, 0, total, ""
        self.drawn = time.monotonic()
        self.handle = display(HTML(self.bar()), display_id=True)

    def on_progress(self, units: int, **metrics: float) -> None:
        self.done += units
        if metrics:
            self.metrics = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        if self.handle is not None and time.monotonic() - self.drawn >= UPDATE:
            self.draw(self.bar())

    def on_progress_end(self) -> None:
        if self.handle is not None:
            self.draw("")
            self.handle = None

    def on_evaluate(self, record: dict[str, Any], best: bool) -> None:
        scores = "  ".join(f"{name.removeprefix('validation_')} {value:.4f}" for name, value in record.items()
                           if name.startswith("validation_"))
        print(f"epoch {record['epoch']:g}  {scores}{'  (best)' if best else ''}")

    def draw(self, html: str) -> None:
        """Replace what the bar shows."""
        from IPython.display import HTML

        self.drawn = time.monotonic()
        self.handle.update(HTML(html))

    def bar(self) -> str:
        """Return the bar as HTML; of a stage whose length is not known, one that only moves."""
        from html import escape

        length = f' max="{self.total}" value="{self.done}"' if self.total else ""
        count = f"{self.done} of {self.total}" if self.total else str(self.done)
        name = escape(self.description)
        return f'<label>{name} <progress{length}></progress></label> {count} {escape(self.metrics)}'


def or_default(callbacks: Callbacks | None) -> Callbacks:
    """Return the caller's callbacks; without any, bars in a notebook, and elsewhere nothing."""
    if callbacks is not None:
        return callbacks
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return NotebookCallbacks() if hasattr(shell, "kernel") else Callbacks()

"""Progress callbacks."""

from __future__ import annotations

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

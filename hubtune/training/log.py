"""The log of a run, truncated to the step that it resumes from, and signals that stop the run."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hubtune.signals import handled


def open_log(path: Path, step: int) -> Any:
    """Open the log, without lines after the step that the run resumes from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = []
    if step and path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):  # a line truncated by a crash
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
    aside = path.with_name(f".{path.name}")
    aside.write_text("".join(kept), encoding="utf-8")
    aside.replace(path)  # killed here, too, there is a log
    return path.open("a", encoding="utf-8")


ECHO = 1.0
"""Seconds in which a second signal counts as the first: launchers repeat the terminal's."""


class StopRequest(threading.Event):
    """A request to stop after the current step, with its signal."""

    number: int = signal.SIGINT


@contextlib.contextmanager
def handle_stop_signals(stop: StopRequest) -> Iterator[None]:
    """Stop after the step on Ctrl-C, SIGTERM or SIGHUP; at once on a second, later signal."""
    first = 0.0

    def ask(number: int, frame: Any) -> None:
        nonlocal first
        if stop.is_set() and time.monotonic() - first > ECHO:
            earlier = before.get(number)
            if callable(earlier):
                earlier(number, frame)
            raise KeyboardInterrupt
        if not stop.is_set():
            first, stop.number = time.monotonic(), number
        stop.set()

    with handled(ask) as before:
        yield

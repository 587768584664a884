"""The log of a run, cut back to where it goes on, and the signals that end it between two steps."""

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
    """The log, without what was written after the step that the run goes on from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = []
    if step and path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):  # a line that a crash cut off
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
    aside = path.with_name(f".{path.name}")
    aside.write_text("".join(kept), encoding="utf-8")
    aside.replace(path)  # killed here, too, there is a log
    return path.open("a", encoding="utf-8")


ECHO = 1.0
"""Seconds in which a second signal is the first one once more: a launcher passes on what the terminal has sent to all."""


class StopRequest(threading.Event):
    """A request to stop after the current step, and the signal that it came by."""

    number: int = signal.SIGINT


@contextlib.contextmanager
def stopping(stop: StopRequest) -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP end the step, save and stop; a second signal, later than its echo, stops at once."""
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

"""Signals that end a process, handled for a while."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

STOPS = tuple(number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)))
"""Ctrl-C, a scheduler's request, and a terminal that went away."""
Handler = Callable[[int, FrameType | None], Any]


@contextlib.contextmanager
def handled(handler: Handler) -> Iterator[dict[int, Any]]:
    """Handle the signals that end a process, except those that are ignored, such as SIGHUP under nohup.

    Yields the handlers from before, which are put back. Python lets the main thread alone handle
    signals, so nothing is done in another.
    """
    if threading.current_thread() is not threading.main_thread():
        yield {}
        return
    before = {number: signal.getsignal(number) for number in STOPS}
    for number, earlier in before.items():
        if earlier is not signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield before
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)

"""Injected faults, and the record of a request. Plain data, no server."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from typing import NamedTuple


class Served(NamedTuple):
    """A request and the status that was sent back; 0 when the connection was cut instead."""

    method: str
    path: str
    status: int


@dataclass
class Fault:
    """Fault of the next requests that match. `status` None cuts the connection instead of answering."""

    method: str
    path: re.Pattern[str]
    times: int | None = 1
    status: int | None = 200
    after: bool = False
    fails: bool = False
    corrupts: bool = False
    delay: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)

    def fits(self, method: str, path: str) -> bool:
        """Return whether this request is one that it hits."""
        return self.method in ("*", method) and self.times != 0 and self.path.search(path) is not None


class Faults:
    """The faults that wait for their request. Set by a test's thread, met by the server's."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        """Let this go wrong."""
        with self._lock:
            self._waiting.append(fault)

    def clear(self) -> None:
        """Let nothing go wrong any more."""
        with self._lock:
            self._waiting.clear()

    def meet(self, method: str, path: str, *, corrupting: bool = False) -> list[Fault]:
        """Return what hits this request, or, if `corrupting`, the content of its answer; each fault counts it."""
        with self._lock:
            met = [one for one in self._waiting if one.corrupts == corrupting and one.fits(method, path)]
            for fault in met:
                fault.times = None if fault.times is None else fault.times - 1
            self._waiting = [fault for fault in self._waiting if fault.times != 0]
            return met

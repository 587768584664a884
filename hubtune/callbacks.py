"""Whoever wants to know how the work goes: told what happens, as it happens. Pure."""

from __future__ import annotations

from typing import Any


class Watcher:
    """Told what happens, as it happens; does nothing by itself."""

    def note(self, text: str) -> None:
        """A line for the user."""

    def warn(self, text: str) -> None:
        """A line that the user should not miss."""

    def begin(self, what: str, total: int) -> None:
        """A piece of work of so many units begins."""

    def advance(self, units: int, **shown: float) -> None:
        """So many units of it are done."""

    def end(self) -> None:
        """The piece of work is over."""

    def validated(self, record: dict[str, Any], best: bool) -> None:
        """The model was scored on the validation rows."""


class Noted(Watcher):
    """Passes on to another watcher, and keeps the warnings for the record."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher
        self.warnings: list[str] = []

    def note(self, text: str) -> None:
        self.watcher.note(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)
        self.watcher.warn(text)

    def begin(self, what: str, total: int) -> None:
        self.watcher.begin(what, total)

    def advance(self, units: int, **shown: float) -> None:
        self.watcher.advance(units, **shown)

    def end(self) -> None:
        self.watcher.end()

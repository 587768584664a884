"""Limits of a request, and its refusal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Limits:
    """The most that a request may ask for; what is larger is refused before any of it is computed.

    body: bytes. rows: of a request. characters: of all texts of a row. pixels: of all images of a request. seconds_of_sound:
    of a row. seconds: until a request is answered with 504. body_seconds: until its body has to be there.
    queue: rows that wait. batch: rows that are predicted together. wait: seconds that a row waits for others.
    words: of a text whose words are weighed.
    """

    body: int = 16 * 2**20
    rows: int = 256
    characters: int = 100_000
    pixels: int = 50_000_000
    seconds_of_sound: float = 600.0
    seconds: float = 60.0
    body_seconds: float = 20.0
    queue: int = 1024
    batch: int = 64
    wait: float = 0.002
    words: int = 200


@dataclass(eq=False)
class Refusal(Exception):
    """An answer that is an error: its status, what is wrong, and what would be right."""

    status: int
    message: str
    hint: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.message

    def as_json(self) -> dict[str, str | None]:
        """Return the body of the answer."""
        return {"error": self.message, "hint": self.hint}

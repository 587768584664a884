"""Addresses that work without a token: unguessable names for one upload or one download, as a storage service has."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from hubtune.testing.hub.refusals import Forbidden
from hubtune.testing.hub.storage.store import Repo


@dataclass(frozen=True)
class Ticket:
    """What an address stands for: one large file of one repo."""

    repo: Repo
    sha256: str
    size: int
    commit: str = ""


class Tickets:
    """All addresses given out since the server started. Asked for again, the same file has the same address."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, ...], str] = {}
        self._tickets: dict[str, Ticket] = {}

    def issue(self, purpose: str, ticket: Ticket) -> str:
        """A name for this ticket; `purpose` keeps a download's name from being good for an upload."""
        key = (purpose, ticket.repo.kind, ticket.repo.id, ticket.sha256, str(ticket.size), ticket.commit)
        name = self._names.setdefault(key, f"{purpose}-{secrets.token_urlsafe(24)}")
        self._tickets[name] = ticket
        return name

    def redeem(self, purpose: str, name: str) -> Ticket:
        """The ticket of that name."""
        if not name.startswith(f"{purpose}-") or name not in self._tickets:
            raise Forbidden("This address was not given out by this server, or before it was restarted.")
        return self._tickets[name]

"""One Hub as its routes know it: its repos, its people, the addresses it gave out and its limits."""

from __future__ import annotations

from dataclasses import dataclass, field

from hubtune.testing.hub.accounts import Accounts
from hubtune.testing.hub.storage.store import Store
from hubtune.testing.hub.tickets import Tickets


@dataclass
class Site:
    """`multipart_above`: bytes from which on uploads come in parts; `page_size`: entries of one page of a list.

    `xet`: large files may be sent by Xet, and those that were are offered by it.
    """

    store: Store
    accounts: Accounts
    multipart_above: int
    page_size: int
    xet: bool = False
    tickets: Tickets = field(default_factory=Tickets)

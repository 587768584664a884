"""Refuses browsers that another site sends here: by the Host of the request (DNS rebinding) and by its Origin."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from hubtune_plugins.serving.limits import Refusal

LOCAL = ("localhost", "127.0.0.1", "[::1]")
SAFE = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin",
}
"""Headers of every answer: the page loads nothing from elsewhere, and no other site may show it."""


class Guard:
    """Middleware that lets only requests for one of some hosts through. hosts: names without a port."""

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self.app, self.hosts = app, frozenset(name.lower() for name in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403 in place of the application, or let it answer."""
        refused = self.refusal(Headers(scope=scope)) if scope["type"] == "http" else None
        if refused is not None:
            await JSONResponse(refused.as_json(), refused.status, headers=SAFE)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def refusal(self, headers: Headers) -> Refusal | None:
        """Return why a request is refused; None where it is not."""
        host = headers.get("host", "")
        name = (host[:host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]).lower()
        if name not in self.hosts:
            return Refusal(403, f"this server is not called {name[:100]!r}.", "Start it with: --allow-host NAME")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return Refusal(403, f"pages of {origin[:100]!r} may not ask this server.", "Ask from its own page, or from a program.")
        if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
            return Refusal(403, "pages of other sites may not ask this server.", "Ask from its own page, or from a program.")
        return None

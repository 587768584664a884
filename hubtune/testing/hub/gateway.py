"""The door of the Hub: every request passes it, is written down, and meets the faults a test has set."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from hubtune.testing.hub.answers import failure
from hubtune.testing.hub.faults import Fault, Faults, Served

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


class Gateway:
    """In front of the Hub: hands each request on by its undecoded path, lets it go wrong, and writes it down."""

    def __init__(self, app: App, faults: Faults, log: list[Served]) -> None:
        self._app, self._faults, self._log = app, faults, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method, path = scope["method"], scope["raw_path"].decode("ascii")
        scope = {**scope, "path": path}
        met = self._faults.meet(method, path)
        await asyncio.sleep(sum(fault.delay for fault in met))

        damaged: list[Fault] = []

        async def logged(message: Message) -> None:
            if message["type"] == "http.response.start":
                # Before it is sent: a client that has its answer must find its request in the record.
                self._log.append(Served(method, path, message["status"]))
                message = {**message, "headers": [*message["headers"], (b"x-request-id", uuid.uuid4().hex.encode())]}
                # A redirect has no content to damage: the fault waits for the address it leads to.
                if message["status"] in (200, 206):
                    damaged.extend(self._faults.meet(method, path, corrupting=True))
            await send(_flipped(message) if damaged else message)

        failing = next((fault for fault in met if fault.fails), None)
        if failing is None or failing.after:
            await self._app(scope, receive, _nowhere if failing else logged)
        if failing and failing.status is None:
            self._log.append(Served(method, path, 0))
            await _cut(receive, send)
        elif failing and failing.status:
            answer = failure(failing.status, "This failure was asked for by a test.", headers=failing.headers)
            await answer(scope, receive, logged)


async def _nowhere(message: Message) -> None:
    """Where an answer goes that is lost."""


async def _cut(receive: Receive, send: Send) -> None:
    # ASGI has no way to hang up; uvicorn's `send` is a method of the object that holds the connection.
    transport: asyncio.Transport = send.__self__.transport  # type: ignore[attr-defined]
    transport.abort()
    while (await receive())["type"] != "http.disconnect":
        pass


def _flipped(message: Message) -> Message:
    body: bytes = message.get("body", b"")
    return {**message, "body": bytes(255 - byte for byte in body[:64]) + body[64:]} if body else message

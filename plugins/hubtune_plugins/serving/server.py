"""Listening, and stopping without losing an answer."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence

import uvicorn

from hubtune import EnvironmentProblem, Model
from hubtune_plugins.serving.endpoint import Endpoint, application
from hubtune_plugins.serving.guard import LOCAL
from hubtune_plugins.serving.limits import Limits

EVERYWHERE = ("0.0.0.0", "::", "")
GRACE = 10
"""Seconds that requests under way have when the server stops."""


def listen(host: str, port: int) -> socket.socket:
    """Bind a socket. Raises EnvironmentProblem where the address is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named, so that asyncio turns Nagle's algorithm off
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except (OSError, OverflowError) as error:
        bound.close()
        raise EnvironmentProblem(f"{host}:{port} cannot be listened on: {getattr(error, 'strerror', None) or error}.",
                                 hint="Choose another port with: --port 8001") from error
    return bound


def stoppable() -> type[uvicorn.Server]:
    """Return a server that ends at a signal, and does not raise it again once it has stopped, as uvicorn's own does."""

    class Server(uvicorn.Server):
        """uvicorn's server, whose end by Ctrl-C is no error."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            """Handle signals while it serves; the main thread alone can."""
            if threading.current_thread() is not threading.main_thread():
                yield
                return
            before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
            try:
                yield
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

    return Server


def serve(model: Model, host: str, port: int, hosts: Sequence[str], limits: Limits, say: Callable[[str], None]) -> Endpoint:
    """Serve a model until Ctrl-C or SIGTERM; requests under way are answered before this returns."""
    bound = listen(host, port)
    try:
        endpoint = Endpoint(model, limits)
        app = application(endpoint, {*LOCAL, *hosts, *([host] if host not in EVERYWHERE else [])})
        config = uvicorn.Config(app, lifespan="off", log_level="error", access_log=False, proxy_headers=False, server_header=False,
                                timeout_graceful_shutdown=GRACE, limit_concurrency=2048, timeout_keep_alive=30, h11_max_incomplete_event_size=65536)
        shown = f"[{host}]" if ":" in host else host
        say(f"Serving {model.name} at http://{shown}:{bound.getsockname()[1]} (API: /docs). Ctrl-C stops it.")
        stoppable()(config).run([bound])
    finally:
        bound.close()
    endpoint.batcher.close(GRACE)
    return endpoint

"""uvicorn in a thread: one application behind one address, for as long as it is wanted."""

from __future__ import annotations

import socket
import threading
import time

import uvicorn

from hubtune.testing.hub.gateway import Gateway

_START_S, _STOP_S = 20.0, 10.0


class Listener:
    """Serves from when it is made until it is closed. Port 0 takes a free one."""

    def __init__(self, app: Gateway, host: str, port: int) -> None:
        # Bound here and not by uvicorn: the port is then known, and a taken one is an error of this thread.
        # The protocol is named as asyncio turns Nagle's algorithm off only then; with it each answer takes 40 ms longer.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, port))
        except OSError:
            self._socket.close()
            raise
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            app, http="h11", lifespan="off", log_level="error", proxy_headers=False, timeout_graceful_shutdown=1,
            timeout_keep_alive=600,  # a client that comes back to a connection just as it is closed would see it reset
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="loopback", daemon=True)
        self._thread.start()
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_S
        while not self._server.started:
            if time.monotonic() > deadline or not self._thread.is_alive():
                raise RuntimeError("The server did not start.")
            time.sleep(0.01)

    def close(self) -> None:
        """Answer what is under way, then stop."""
        self._server.should_exit = True
        self._thread.join(_STOP_S)

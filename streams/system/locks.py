"""One process at a time in a directory: a lock that the kernel releases when its holder ends, however it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from streams.errors import InputError
from streams.system.files import writing

LOCKS = Path("/proc/locks")


class Held:
    """A directory that no other process may take until this is let go."""

    def __init__(self, directory: Path) -> None:
        """Take a directory, and make it where there is none; what is in it is not touched.

        Raises:
            InputError: another process holds it.
            StoreError: it cannot be made.

        """
        with writing(directory):
            directory.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(directory, os.O_RDONLY)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(self._handle)
            self.let_go()
            process = f"process {holder}" if holder else "another process"
            raise InputError(
                f"{directory} is in use by {process}; wait until it has ended, or name another directory"
            ) from None

    def let_go(self) -> None:
        """Let others have it."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Hold a directory for a while."""
    held = Held(directory)
    try:
        yield
    finally:
        held.let_go()


def _holder(handle: int) -> int | None:
    """The process that has locked a file, where the kernel tells it (Linux does)."""
    inode = f":{os.fstat(handle).st_ino}"
    with suppress(OSError, ValueError, IndexError):
        for line in LOCKS.read_text().splitlines():
            _, kind, _, _, process, file, *_ = line.split()
            if kind == "FLOCK" and file.endswith(inode) and int(process) > 0:
                return int(process)
    return None

"""The command as it is typed, run in this process: one of its own would begin with seconds of imports."""

from __future__ import annotations

import gc
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import pytest

from streams.cli.app import main


class Ended(NamedTuple):
    """How a command ended, and what it said."""

    returncode: int
    stdout: str
    stderr: str


def reptide(folder: Path, *arguments: str | Path) -> Ended:
    """Run `reptide ARGUMENTS` in a folder."""
    stdout, stderr = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(stdout), redirect_stderr(stderr):
        patched.chdir(folder)
        patched.setattr(sys, "argv", ["reptide", *map(str, arguments)])
        patched.setattr(sys, "path", [*sys.path])  # the command adds the folder
        with pytest.raises(SystemExit) as ended:
            main()
    gc.unfreeze()  # of a process of its own all would be gone
    return Ended(int(ended.value.code or 0), stdout.getvalue(), stderr.getvalue())

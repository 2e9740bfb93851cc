"""A process that kills itself, with no chance to tidy up, just before the nth of its effects of one kind.

The effects are those of the real files: what is patched is only the moment before each.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from engine.stream.fold import Engine
from streams.assembly.embedded import embedded
from streams.logs.file.log import FileLog
from streams.logs.output import OutputFile
from streams.program.embedded import run
from streams.program.trainer import Trainer
from streams.stores.checkpoints import DirectoryMeta
from streams.stores.lmdb import LmdbStore
from tests.faults.shop import settings_of

EFFECTS: dict[str, tuple[Any, str]] = {
    "poll": (FileLog, "poll"),
    "adopt": (LmdbStore, "adopt"),
    "fold": (Engine, "fold_into"),
    "append": (OutputFile, "append"),
    "sync": (OutputFile, "sync"),
    "swap": (LmdbStore, "swap"),
    "commit": (FileLog, "commit"),
    "fsync": (os, "fsync"),
    "replace": (Path, "replace"),
    "take": (Trainer, "take"),
    "publish": (DirectoryMeta, "publish"),
    "link": (os, "link"),
    "unlink": (Path, "unlink"),
}


def live(directory: Path, effect: str = "", nth: int = 0) -> None:
    """Run the program of a directory until it has ended, or until its time has come."""
    torch.set_num_threads(1)
    if effect:
        owner, name = EFFECTS[effect]
        setattr(owner, name, _dying(getattr(owner, name), nth))
    program = embedded(settings_of(directory))
    run(program, lambda progress: None)
    program.close()


def _dying(effect: Callable[..., Any], nth: int) -> Callable[..., Any]:
    countdown = iter(range(nth, -(10**9), -1))

    def call(*arguments: Any, **options: Any) -> Any:
        if next(countdown) == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return effect(*arguments, **options)

    return call

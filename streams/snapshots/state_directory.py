"""Snapshots of an embedded run: its state directory, copied while the run goes on.

Copied in the order of effects, backwards: the position first, then rows and adoptions, as one transaction of LMDB
saw them, then the outputs, which are always ahead of the rows. So all that a run does again after a restore is to
pass over events that the rows know. Versions of theta that the rows do not know yet stay out: an uninterrupted run
would make them again from the same labels.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from engine.learners.base import Learner
from streams.errors import InputError
from streams.settings import Settings
from streams.snapshots.folder import Draft, drafted, opened
from streams.snapshots.spec import check_kind, described
from streams.stores.checkpoints import DirectoryMeta
from streams.stores.lmdb import LmdbStore
from streams.wiring import learner, lmdb_store, task_spec

KIND = "state directory"
ROWS, THETA, OUTPUTS = "rows", "theta", "outputs"


def snapshot(settings: Settings, directory: Path, show: Callable[[str], None]) -> None:
    """Write a snapshot of the state directory to a new directory; a run may go on meanwhile.

    Raises:
        InputError: there is no state, or `directory` holds something.
    """
    state = settings.run.directory
    if not (state / ROWS).is_dir():
        raise InputError(f"{state} holds no run yet; `reptide run` makes one")
    learns, store = learner(settings, task_spec(settings)), lmdb_store(settings)
    try:
        copy_state(state, store, learns, directory, show)
    finally:
        store.close()


def copy_state(
    state: Path, store: LmdbStore, learns: Learner, directory: Path, show: Callable[[str], None]
) -> None:
    """Write a snapshot of a state directory whose store is open."""
    with drafted(directory, f"{directory} is not empty; name a new directory for the snapshot") as path:
        draft, versions = Draft(path), DirectoryMeta(state / THETA)
        for file in sorted(state.glob("*.json")):
            draft.copy(file.name, file)
        newest = versions.current()
        show("copying the rows")
        (path / ROWS).mkdir()
        newest = max(newest, store.copy_to(path / ROWS))
        draft.take_in(f"{ROWS}/data.mdb")
        show(f"copying theta, up to version {newest:,}")
        for file in versions.files(newest):
            draft.copy(f"{THETA}/{file.name}", file)
        for file in sorted((state / OUTPUTS).glob("*")):
            show(f"copying {file.name}")
            draft.copy(f"{OUTPUTS}/{file.name}", file)
        draft.seal({**described(learns, KIND), "taken_s": time.time()})


def restore(settings: Settings, directory: Path, show: Callable[[str], None]) -> None:
    """Make a state directory from a snapshot; `reptide run` goes on with it.

    Raises:
        InputError: the snapshot is damaged or of another stream, or there is a state directory. Nothing was changed.
    """
    folder = opened(directory)
    check_kind(folder, KIND, learner(settings, task_spec(settings)))
    show("reading the snapshot through")
    folder.check()
    state = settings.run.directory
    taken = f"{state} holds a run already; move it away, or name another directory: --set run.directory=PATH"
    with drafted(state, taken) as draft:
        for name in folder.files:
            show(f"writing {name}")
            folder.copy(name, draft / name)

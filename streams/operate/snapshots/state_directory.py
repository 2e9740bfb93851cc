"""Snapshots of an embedded run: its state directory, copied while the run goes on.

Copied in the order of effects, backwards: the position first, then rows and adoptions, as one transaction of LMDB
saw them, then the outputs, which are always ahead of the rows. So all that a run does again after a restore is to
pass over events that the rows know. Versions of theta that the rows do not know yet stay out: an uninterrupted run
would make them again from the same labels. A run prunes meanwhile, so it is seen at the end that all is there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Set
from contextlib import suppress
from pathlib import Path

from engine.stream.layout import layout_of
from streams.assembly import parts
from streams.assembly.embedded import lmdb_store
from streams.errors import InputError
from streams.events.record import ONLY, SourcePosition
from streams.logs.file.log import POSITION
from streams.logs.file.position import read_position
from streams.operate.snapshots.folder import Draft, drafted, opened
from streams.operate.snapshots.spec import check_kind, described
from streams.program.schedule import Schedule
from streams.replay.replayable import PRUNED, check_taken
from streams.settings.tree import Settings
from streams.stores.checkpoints import DirectoryMeta, kept
from streams.stores.lmdb import LmdbStore

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
    stream, store = _described(settings), lmdb_store(settings)
    try:
        copy_state(state, store, stream, Schedule(settings.outer.every), directory, show)
    finally:
        store.close()


def _described(settings: Settings) -> dict[str, str]:
    """What a snapshot of these settings' stream says of it."""
    spec, learns = parts.described(settings)
    return described(layout_of(spec, learns), learns, KIND)


def copy_state(
    state: Path,
    store: LmdbStore,
    stream: Mapping[str, str],
    schedule: Schedule,
    directory: Path,
    show: Callable[[str], None],
) -> None:
    """Write a snapshot of a state directory whose store is open, of a stream as `described` says it.

    Raises:
        InputError: a version of theta that it needs was deleted meanwhile.

    """
    with drafted(directory, f"{directory} is not empty; name a new directory for the snapshot") as path:
        draft, versions = Draft(path), DirectoryMeta(state / THETA)
        for file in sorted(state.glob("*.json")):
            draft.copy(file.name, file)
        newest = versions.current()
        show("copying the rows")
        (path / ROWS).mkdir()
        adoptions = store.copy_to(path / ROWS)
        newest = max(newest, *adoptions.values(), 0)
        draft.take_in(f"{ROWS}/data.mdb")
        show(f"copying theta, up to version {newest:,}")
        missing = {newest, *adoptions.values()} - {0, *_copied_theta(draft, versions, newest)}
        _check_theta(path, adoptions, missing, newest, schedule)
        for file in sorted((state / OUTPUTS).glob("*")):
            show(f"copying {file.name}")
            draft.copy(f"{OUTPUTS}/{file.name}", file)
        draft.seal({**stream, "taken_s": time.time()})


def _copied_theta(draft: Draft, versions: DirectoryMeta, newest: int) -> list[int]:
    """Copy all versions up to one; those that are pruned meanwhile stay out."""
    for file in versions.directory.glob("classes.json"):
        draft.copy(f"{THETA}/{file.name}", file)
    copied = []
    for version in (version for version in kept(versions.directory) if version <= newest):
        with suppress(FileNotFoundError):
            for file in versions.files(version):
                draft.copy(f"{THETA}/{file.name}", file)
            copied.append(version)
    return copied


def _check_theta(
    path: Path, adoptions: Mapping[SourcePosition, int], missing: Set[int], newest: int, schedule: Schedule
) -> None:
    """Refuse a copy that lacks what a run folds again from its position on, or what its trainer goes on from."""
    position = read_position(path / POSITION)
    if newest in missing:
        raise InputError(f"version {newest} of theta was pruned while {PRUNED}")
    if position is not None:
        check_taken(adoptions, position.incarnation, {ONLY: position.offset}, missing, schedule)


def restore(settings: Settings, directory: Path, show: Callable[[str], None]) -> None:
    """Make a state directory from a snapshot; `reptide run` goes on with it.

    Raises:
        InputError: the snapshot is damaged or of another stream, or there is a state directory. Nothing was changed.
    """
    folder = opened(directory)
    check_kind(folder, _described(settings))
    show("reading the snapshot through")
    folder.check()
    state = settings.run.directory
    taken = f"{state} holds a run already; move it away, or name another directory: --set run.directory=PATH"
    with drafted(state, taken) as draft:
        for name in folder.files:
            show(f"writing {name}")
            folder.copy(name, draft / name)

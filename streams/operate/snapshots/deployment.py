"""Snapshots of a deployment: what Redis holds, and how far the group had come, taken while workers run.

The committed offsets are read first. Rows are read after them, one by one, so each may be further; its own position
says how far, and after a restore it passes over what it knows. The adoptions are read last: they name the version of
theta of every event that any of the rows has folded since, and of those that others fold again. Below the committed
offsets nothing is folded again, so adoptions and versions from before stay out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from engine.stream.layout import Layout
from streams.assembly.deployed import Deployment
from streams.errors import InputError, StoreError
from streams.events.record import Offsets, SourcePosition
from streams.logs.kafka.kafka_python.client import topic_incarnations
from streams.logs.kafka.replay import GroupOffsets
from streams.operate.snapshots.folder import Draft, Folder, drafted, opened
from streams.operate.snapshots.rows import packed, pages
from streams.operate.snapshots.spec import check_kind, described
from streams.program.schedule import Schedule
from streams.replay.making_anew import making_anew
from streams.replay.replayable import Extent, check_taken, gone, refuse
from streams.settings.kept import OWN_STREAM, of_rows, refuse_changed
from streams.stores.classes import names_of
from streams.stores.redis.tombstones import Tombstones

KIND = "deployment"
ROWS, ADOPTIONS, TOMBSTONES, THETA = "rows", "adoptions.json", "tombstones.json", "theta"

Show = Callable[[str], None]


class Taken(NamedTuple):
    """What a snapshot says beside its rows."""

    folder: Folder
    positions: Offsets
    """Below these everything is in the rows."""
    incarnations: tuple[int, ...]
    """Of the input topics."""
    through: Offsets
    """Where these ended; no row is beyond."""
    adoptions: Mapping[SourcePosition, int]
    versions: tuple[int, ...]
    """Of theta, the newest last."""
    classes: tuple[str, ...]
    """As they are recorded where some may be appended."""
    tombstones: Tombstones

    def pages(self, layout: Layout) -> Iterator[list[tuple[str, bytes]]]:
        """The rows, a page at a time."""
        return pages(self.folder.pieces(ROWS), layout.bytes_per_task)


def snapshot(deployment: Deployment, directory: Path, show: Show) -> None:
    """Write a snapshot to a new directory.

    Raises:
        InputError: `directory` holds something, or a topic is missing.
        StoreError: the rows are being made anew, or were meanwhile.
        CheckpointError: a version of theta that is needed is damaged.
    """
    store, topics = deployment.store, deployment.kafka.inputs
    made = store.made()
    store.check_finished()
    incarnations = topic_incarnations(deployment.connection, topics)
    group = GroupOffsets(deployment.connection, deployment.group, topics)
    positions = group.read()
    with drafted(directory, f"{directory} is not empty; name a new directory for the snapshot") as path:
        draft = Draft(path)
        _write_rows(draft, deployment, show)
        cells = _needed(deployment, positions, incarnations[0])
        missing = deployment.versions.missing(cells.values())
        check_taken(cells, incarnations[0], positions, missing, Schedule(deployment.settings.outer.every))
        versions = sorted({*cells.values(), deployment.versions.current()} - {0})
        for version in versions:
            draft.add(f"{THETA}/{version}", deployment.versions.content(version))
        show(f"{len(versions):,} versions of theta")
        draft.add(ADOPTIONS, json.dumps([[*at, version] for at, version in cells.items()]).encode())
        draft.add(TOMBSTONES, _told(store.tombstones.live()))
        through = group.end()
        if store.made() != made:
            raise StoreError(
                f"the rows of stream {deployment.settings.stream!r} were made anew while they were read; take the "
                "snapshot again"
            )
        draft.seal({
            **described(deployment.layout, deployment.learner, KIND),
            "taken_s": time.time(),
            "settings": of_rows(deployment.settings),
            "positions": _listed(positions),
            "through": _listed(through),
            "incarnations": incarnations,
            "versions": versions,
            "classes": names_of(deployment.spec.problem.target),
        })  # fmt: skip


def taken(deployment: Deployment, directory: Path, show: Show) -> Taken:
    """Read a snapshot through, all but its rows, of which it is seen that they are what was written.

    Raises:
        InputError: it is damaged, or of another stream.
        SettingsError: its rows were made under other settings.
    """
    folder = opened(directory)
    check_kind(folder, described(deployment.layout, deployment.learner, KIND))
    show("reading the snapshot through")
    folder.check()
    said = folder.described
    try:
        _check_settings(deployment, folder)
        return Taken(
            folder,
            _offsets(said["positions"]),
            tuple(map(int, said["incarnations"])),
            _offsets(said["through"]),
            {SourcePosition(*at): version for *at, version in json.loads(folder.read(ADOPTIONS))},
            tuple(map(int, said["versions"])),
            tuple(said["classes"]),
            _read_tombstones(folder.read(TOMBSTONES)),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"the snapshot {directory} is of another program ({type(error).__name__}); take another one"
        ) from None


def check_store(deployment: Deployment, of: Taken) -> None:
    """Refuse a snapshot of another history than the one that Redis holds.

    Raises:
        InputError: a version of theta has another content there, or classes are others.
        StoreError: tombstones there are of another secret.
    """
    given = names_of(deployment.spec.problem.target)
    if list(of.classes) != given[: len(of.classes)]:  # first: `versions` keeps the classes
        raise InputError(
            f"target.classes: the snapshot {of.folder.directory} was taken with [{', '.join(of.classes)}]; keep "
            "these as they are, and append new ones"
        )
    versions = deployment.versions
    deployment.store.tombstones.check_secret(of.tombstones)
    for version in of.versions:
        if versions.differing(version, of.folder.read(f"{THETA}/{version}")):
            raise InputError(
                f"Redis at {deployment.server.address} holds another version {version} of theta than the snapshot "
                f"{of.folder.directory}: a stream that was trained anew since. Restore it to an empty Redis, or name "
                "another `stream`"
            )


def restore(deployment: Deployment, directory: Path, show: Show, inexact: bool = False) -> None:
    """Put a snapshot in the place of what Redis holds; workers go on from its positions. No worker may run.

    Raises:
        InputError: the snapshot is damaged or of another stream, a worker runs, or the log no longer holds what comes
            after it, and the rows need not be `inexact`. Nothing was changed.
    """
    of = taken(deployment, directory, show)
    check_store(deployment, of)
    group = GroupOffsets(deployment.connection, deployment.group, deployment.kafka.inputs)
    start, end = group.start(), group.end()
    _check_log(deployment, of, start, end, inexact)
    positions = {place: max(start[place], at) for place, at in of.positions.items()}
    with making_anew(deployment, group, positions, f"restore {directory}"):
        deployment.store.clear()
        _put_back(deployment, of, show)
    deployment.store.close()


def _check_log(deployment: Deployment, of: Taken, start: Offsets, end: Offsets, inexact: bool) -> None:
    topics = deployment.kafka.inputs
    if start.keys() != of.positions.keys():
        raise InputError(
            f"the snapshot {of.folder.directory} was taken of {len(of.positions)} partitions, "
            f"{' and '.join(topics)} have {len(start)}: events of its tasks may lie elsewhere now; restore it to "
            "topics of as many partitions, or make all rows anew by `reptide rebuild`"
        )
    if topic_incarnations(deployment.connection, topics) != of.incarnations:
        raise InputError(
            f"the snapshot {of.folder.directory} was taken of other topics than {' and '.join(topics)} are now: "
            "these were created anew, and its positions mean nothing in them; make rows of what they hold by "
            "`reptide rebuild`"
        )
    cut = [*gone(Extent(end, {}, end, of.through), topics)]
    refuse(
        cut,
        "What is sent now would be taken for what the rows know already. Take an earlier snapshot, or make rows of "
        "what is left by `reptide rebuild --inexact`; nothing was changed",
    )
    if not inexact:
        lost = [*gone(Extent(of.positions, start, end, end), topics)]
        refuse(lost, "Take a later snapshot, or go on without those events by --inexact; nothing was changed")


def _put_back(deployment: Deployment, of: Taken, show: Show) -> None:
    """Write all of a snapshot to Redis, in which rows were cleared; doing it again comes to the same."""
    store, versions = deployment.store, deployment.versions
    for version in of.versions:
        versions.put(version, of.folder.read(f"{THETA}/{version}"))
    store.record(of.adoptions)
    store.set_partitions(1 + max(partition for _, partition in of.positions))
    store.tombstones.bury(of.tombstones)
    rows = 0
    for page in of.pages(deployment.layout):
        store.put(page)
        rows += len(page)
        show(f"{rows:,} rows written")
    if of.versions:
        versions.advance(of.versions[-1])


def _write_rows(draft: Draft, deployment: Deployment, show: Show) -> None:
    rows = 0
    with draft.file(ROWS) as write:
        for page in deployment.store.stored():
            write(packed(page))
            rows += len(page)
            show(f"{rows:,} rows read")


def _needed(deployment: Deployment, positions: Offsets, incarnation: int) -> dict[SourcePosition, int]:
    """The adoptions of events that are folded again."""
    schedule = Schedule(deployment.settings.outer.every)
    first = {partition: schedule.cell(at) for (topic, partition), at in positions.items() if topic == 0}
    return {
        at: version
        for at, version in deployment.store.adoptions().items()
        if at.incarnation == incarnation and at.offset >= first.get(at.partition, 0)
    }


def _check_settings(deployment: Deployment, folder: Folder) -> None:
    kept = folder.described["settings"]
    refuse_changed(
        kept, of_rows(deployment.settings), f"the rows of the snapshot {folder.directory}", OWN_STREAM
    )


def _listed(offsets: Offsets) -> list[list[int]]:
    return [[*place, at] for place, at in offsets.items()]


def _offsets(listed: list[list[int]]) -> Offsets:
    return {(int(topic), int(partition)): int(at) for topic, partition, at in listed}


def _read_tombstones(content: bytes) -> Tombstones:
    said = json.loads(content)
    until_s = {bytes.fromhex(digest): float(end) for digest, end in said["until_s"].items()}
    return Tombstones(None, bytes.fromhex(said["secret"]), until_s)


def _told(tombstones: Tombstones) -> bytes:
    until_s = {digest.hex(): end for digest, end in tombstones.until_s.items()}
    return json.dumps({"secret": tombstones.secret.hex(), "until_s": until_s}).encode()

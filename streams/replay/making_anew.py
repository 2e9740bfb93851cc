"""What commands do that make the rows of a deployment anew: refuse first, then keep workers off until the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import sleep

from streams.assembly.deployed import Deployment
from streams.errors import InputError
from streams.events.record import Offsets
from streams.logs.kafka.kafka_python.client import topic_incarnations
from streams.logs.kafka.replay import GroupOffsets
from streams.program.pruning import Adoptions, adoptions_of
from streams.program.schedule import Schedule
from streams.program.theta import ThetaCache
from streams.replay.replayable import Extent, forgotten_theta, gone, refuse

WAY_OUT = (
    "Go back to a snapshot by `reptide restore`, or have rows made of what is left, which are not those of before, "
    "by --inexact; nothing was changed"
)
ONE_ROW = "rebuild --task"


def first_offsets(
    deployment: Deployment, group: GroupOffsets, committed: Offsets, adoptions: Adoptions, inexact: bool
) -> dict[tuple[int, int], int]:
    """Where the log begins now, if all that was folded can be folded again as it was, or need not be.

    Raises:
        InputError: it cannot.
        CheckpointError: theta is damaged, or of another problem.

    """
    topics, versions = deployment.kafka.inputs, deployment.versions
    theta = ThetaCache(deployment.engine, versions)
    for version in {versions.current(), *adoptions.kept.values()}:
        theta.get(version)
    start = group.start()
    extent = Extent({}, start, group.end(), committed)
    if not inexact:
        incarnation = topic_incarnations(deployment.connection, topics)[0]
        schedule = Schedule(deployment.settings.outer.every)
        forgotten = forgotten_theta(adoptions.kept, incarnation, extent, schedule)
        refuse([*gone(extent, topics), *forgotten], WAY_OUT)
    return start


@contextmanager
def making_anew(
    deployment: Deployment, group: GroupOffsets, start: Offsets, command: str, end: Offsets | None = None
) -> Iterator[None]:
    """Set the group back to where rows begin, and let no worker go on until they are whole and will not be forgotten.

    Where the rows are then folded up to an `end`, workers go on from there. A worker that joins meanwhile asks for
    the mark before it folds; the offsets are written at the end too, which is refused while there is one.

    Raises:
        InputError: the group has members; nothing was changed, or if they came meanwhile, the command is to be run
            again.

    """
    store = deployment.store
    stopped = store.begin(command)
    try:
        group.write(start)
    except InputError:
        if stopped in (None, ONE_ROW):
            store.finished()
        else:
            store.begin(stopped)  # half of what it was to make is there
        raise
    store.drop_adoptions(adoptions_of(store, deployment.versions).gone)
    yield
    sleep(deployment.settings.service.durability_lag_s)
    store.ping()  # raises where it was restarted, and may have forgotten its last rows
    store.confirm()
    try:
        group.write(start if end is None else end)
    except InputError as error:
        raise InputError(f"{error}; then run `reptide {command}` again, its rows are not whole") from None
    deployment.keep_settings()
    store.finished()


@contextmanager
def one_row_anew(deployment: Deployment, group: GroupOffsets, committed: Offsets) -> Iterator[None]:
    """Let no worker fold while one row is made anew up to what is committed; the others stay as they are throughout.

    Raises:
        InputError: the group has members; nothing was changed.
        StoreError: all rows are being made anew.

    """
    store = deployment.store
    store.check_finished(ONE_ROW)  # which leaves all rows whole, wherever it is stopped
    store.begin(ONE_ROW)
    try:
        group.write(committed)
        yield
        sleep(deployment.settings.service.durability_lag_s)
        store.ping()
        store.confirm()
    finally:
        store.finished()

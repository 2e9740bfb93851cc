"""What commands do that make the rows of a deployment anew: refuse first, then keep workers off until the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import sleep

from streams.deployment import Deployment
from streams.errors import InputError
from streams.logs.base import Offsets
from streams.logs.kafka_client import topic_incarnations
from streams.logs.kafka_replay import GroupOffsets
from streams.replayable import Extent, forgotten_theta, gone, refuse
from streams.schedule import Schedule
from streams.theta import ThetaCache

WAY_OUT = (
    "Go back to a snapshot by `reptide restore`, or have rows made of what is left, which are not those of before, "
    "by --inexact; nothing was changed"
)


def first_offsets(
    deployment: Deployment, group: GroupOffsets, committed: Offsets, inexact: bool
) -> dict[tuple[int, int], int]:
    """Where the log begins now, if all that was folded can be folded again as it was, or need not be.

    Raises:
        InputError: it cannot.
        CheckpointError: theta is damaged, or of another task spec.

    """
    topics, versions = deployment.kafka.inputs, deployment.versions
    ThetaCache(deployment.engine, versions).get(versions.current())
    start = group.start()
    extent = Extent({}, start, group.end(), committed)
    if not inexact:
        incarnation = topic_incarnations(deployment.connection, topics)[0]
        adoptions = deployment.store.adoptions()
        missing = versions.missing(adoptions.values())
        schedule = Schedule(deployment.settings.outer.every)
        theta = forgotten_theta(adoptions, incarnation, extent, missing, schedule)
        refuse([*gone(extent, topics), *theta], WAY_OUT)
    return start


@contextmanager
def making_anew(
    deployment: Deployment, group: GroupOffsets, start: Offsets, command: str, end: Offsets | None = None
) -> Iterator[None]:
    """Set the group back to where rows begin, and let no worker go on until they are whole and will not be forgotten.

    Where the rows are then folded up to an `end`, workers go on from there.

    Raises:
        InputError: the group has members; nothing was changed.

    """
    store = deployment.store
    store.begin(command)
    try:
        group.write(start)
    except InputError:
        store.finished()
        raise
    yield
    sleep(deployment.settings.service.durability_lag_s)
    store.ping()  # raises where it was restarted, and may have forgotten its last rows
    if end is not None:
        group.write(end)
    store.finished()

"""Records of a log to the engine's events; which are sound `streams.events.sound` says, and why not `reading`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from engine.problem import Problem
from engine.stream.events import EventBatch
from engine.types import Int64, UInt64
from streams.events.columns import taken
from streams.events.reading import Rejected
from streams.events.record import Polled, Record
from streams.events.sound import sound_of

R = TypeVar("R")


class Decoded(NamedTuple):
    """The events of a poll, ready for `Engine.fold`, and what had to be refused."""

    tasks: tuple[str, ...]
    """[U] the tasks of the batch, in order of first appearance."""
    events: EventBatch
    records: Sequence[Record]
    """[N] the record of each event."""
    rejected: Sequence[Rejected]


def decode(polled: Sequence[Polled], problem: Problem) -> Decoded:
    """Check and encode the records of a poll; every record comes back, as an event or as `Rejected`."""
    records = polled[0].records if len(polled) == 1 else [r for part in polled for r in part.records]
    sound = sound_of(records, problem)
    index, columns = sound.index, sound.columns
    topic, partition = _of(columns.topic, index), _of(columns.partition, index)
    latest_s = _of(columns.latest_s, index)
    is_known = latest_s < inf  # it is NaN where the log does not say
    events = EventBatch(
        row=sound.row,
        kind=_of(columns.kind, index),
        id=sound.id,
        time_s=sound.time_s,
        x=sound.x,
        has_x=sound.has_x,
        y=sound.y,
        topic=topic,
        offset=_of(columns.offset, index),
        partition=partition,
        incarnation=_incarnations(topic, partition, polled),
        not_after_s=np.where(is_known, latest_s, inf) if np.count_nonzero(is_known) else inf,
    )
    return Decoded(sound.tasks, events, taken(records, index), sound.rejected)


def _of(column: npt.NDArray[Any], index: Int64) -> npt.NDArray[Any]:
    """A column of the records that are sound: most often all are."""
    return column if len(index) == len(column) else column[index]


def _incarnations(topic: Int64, partition: Int64, polled: Sequence[Polled]) -> UInt64:
    """That of the topic of each event."""
    known = {(t, part.partition): i for part in polled for t, i in enumerate(part.incarnations)}
    if len(known) == 1:
        (incarnation,) = known.values()
        everywhere: UInt64 = np.full(len(topic), incarnation, np.uint64)
        return everywhere
    places = zip(topic.tolist(), partition.tolist(), strict=True)
    return np.array([known[place] for place in places], np.uint64)


@dataclass(frozen=True)
class Tally:
    """How often one reason was met, and its first case."""

    count: int
    origin: str
    detail: str


def tally(
    so_far: Mapping[str, Tally], rejected: Iterable[tuple[R, str, str]], origin: Callable[[R], str]
) -> dict[str, Tally]:
    """Count what was refused, as (record, reason, detail), by reason: few entries, however many records."""
    counted = dict(so_far)
    for record, reason, detail in rejected:
        known = counted.get(reason) or Tally(0, origin(record), detail)
        counted[reason] = replace(known, count=known.count + 1)
    return counted

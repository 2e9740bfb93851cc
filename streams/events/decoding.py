"""Records of a log to the engine's events; what is refused, and why, `streams.events.reading` says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import NamedTuple, TypeVar

import numpy as np

from engine.problem import Problem
from engine.stream.events import EventBatch
from engine.types import Float64
from streams.events.reading import Read, Rejected, read
from streams.events.record import Place, Polled, Record

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
    found = read([record for part in polled for record in part.records], problem)
    incarnations = {(t, part.partition): i for part in polled for t, i in enumerate(part.incarnations)}
    tasks, events = _batch(found, incarnations)
    return Decoded(tasks, events, [event.record for event in found.events], found.rejected)


def _batch(found: Read, incarnations: Mapping[Place, int]) -> tuple[tuple[str, ...], EventBatch]:
    """Sound events as arrays."""
    events = found.events
    rows: dict[str, int] = {}
    topic = [event.record.topic for event in events]
    partition = [event.record.partition for event in events]
    batch = EventBatch(
        row=np.array([rows.setdefault(event.task, len(rows)) for event in events], np.int64),
        kind=np.array([event.record.kind for event in events], np.uint8),
        id=np.array([event.id for event in events], np.uint64),
        time_s=np.array([event.time_s for event in events], np.float64),
        x=found.x,
        has_x=found.has_x,
        y=np.array([event.y for event in events], np.float32),
        topic=np.array(topic, np.int64),
        offset=np.array([event.record.offset for event in events], np.int64),
        partition=np.array(partition, np.int64),
        incarnation=np.array(
            [incarnations[place] for place in zip(topic, partition, strict=True)], np.uint64
        ),
        not_after_s=_bounds([event.record.latest_s for event in events]),
    )
    return tuple(rows), batch


def _bounds(latest_s: Sequence[float]) -> Float64:
    """The latest times [N] that the log can hold; NaN, where it does not say, bounds nothing."""
    bounds = np.array(latest_s, np.float64)
    bounds[np.isnan(bounds)] = inf
    return bounds


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

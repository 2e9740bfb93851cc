"""Records of a log to the engine's events; what is refused, and why, `streams.events.reading` says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import NamedTuple, TypeVar

import numpy as np

from engine.problem import Problem
from engine.stream.events import EventBatch
from engine.types import Bool, Float32, Float64, Int64, Kind, UInt64
from streams.events.columns import RecordColumns, columns_of, taken
from streams.events.labels import labels_of
from streams.events.reading import MAX_ID_BYTES, Event, Rejected, event_hash, read
from streams.events.record import Polled, Record

R = TypeVar("R")

LONGEST_CHARACTER = 4
"""Bytes in UTF-8."""


class Decoded(NamedTuple):
    """The events of a poll, ready for `Engine.fold`, and what had to be refused."""

    tasks: tuple[str, ...]
    """[U] the tasks of the batch, in order of first appearance."""
    events: EventBatch
    records: Sequence[Record]
    """[N] the record of each event."""
    rejected: Sequence[Rejected]


def decode(polled: Sequence[Polled], problem: Problem) -> Decoded:
    """Check and encode the records of a poll; every record comes back, as an event or as `Rejected`.

    What columns tell is looked at column by column; a record that does not fit there is read by itself, which alone
    refuses one, and says why (`streams.events.reading`).
    """
    records = polled[0].records if len(polled) == 1 else [r for part in polled for r in part.records]
    columns = columns_of(records, problem.features)
    found = _by_column(columns, problem)
    rejected = _by_themselves(records, found, problem)
    index = np.flatnonzero(found.sound)
    tasks, events = _batch(columns, found, index, polled)
    return Decoded(tasks, events, taken(records, index), rejected)


class _Found(NamedTuple):
    """N records as events, as far as they are known to be `sound`."""

    sound: Bool
    task: list[str | None]
    id: UInt64
    time_s: Float64
    y: Float32
    x: Float32
    has_x: Bool


def _by_column(columns: RecordColumns, problem: Problem) -> _Found:
    """What is sound by its columns alone."""
    y = np.zeros(len(columns.kind))
    y[columns.kind == Kind.LABEL] = labels_of(problem.target, columns.label)
    x = np.zeros((len(y), problem.features.width), np.float32)
    carrying = np.flatnonzero(columns.carries)
    x[carrying] = columns.encoded.x
    named = {text for text in {*columns.task} if _utf8(text)}
    hashes = {text: event_hash(written) for text in {*columns.id} if (written := _utf8(text))}
    sound = columns.whole & np.isfinite(columns.time_s) & ~(columns.time_s > columns.latest_s) & ~np.isnan(y)
    sound &= np.array([text in named for text in columns.task], np.bool_)
    sound &= np.array([text in hashes for text in columns.id], np.bool_)
    sound[carrying[[*columns.encoded.faults]]] = False
    identities = np.array([hashes.get(text, 0) for text in columns.id], np.uint64)
    time_s, has_x = columns.time_s.copy(), columns.carries.copy()
    return _Found(sound, [*columns.task], identities, time_s, y.astype(np.float32), x, has_x)


def _utf8(text: str | None) -> bytes:
    """An id as it is hashed; nothing where it has to be looked at by itself."""
    if type(text) is not str or len(text) > MAX_ID_BYTES // LONGEST_CHARACTER:
        return b""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return b""


def _by_themselves(records: Sequence[Record], found: _Found, problem: Problem) -> Sequence[Rejected]:
    """Read the records that are left one by one, and put those that are sound among what was found."""
    left = np.flatnonzero(~found.sound)
    if not len(left):
        return []
    one_by_one = read([*taken(records, left)], problem)
    for n, verdict in zip(left.tolist(), one_by_one.verdicts, strict=True):
        if isinstance(verdict, Event):
            found.sound[n] = True
            found.task[n], found.id[n], found.time_s[n], found.y[n] = verdict
    found.x[left], found.has_x[left] = one_by_one.x, one_by_one.has_x
    return one_by_one.rejected


def _batch(
    columns: RecordColumns, found: _Found, index: Int64, polled: Sequence[Polled]
) -> tuple[tuple[str, ...], EventBatch]:
    """Those of the records that are sound, as arrays."""
    rows: dict[str | None, int] = {}
    topic, partition = columns.topic[index], columns.partition[index]
    batch = EventBatch(
        row=np.array([rows.setdefault(found.task[n], len(rows)) for n in index.tolist()], np.int64),
        kind=columns.kind[index],
        id=found.id[index],
        time_s=found.time_s[index],
        x=found.x[index],
        has_x=found.has_x[index],
        y=found.y[index],
        topic=topic,
        offset=columns.offset[index],
        partition=partition,
        incarnation=_incarnations(topic, partition, polled),
        not_after_s=np.where(np.isnan(columns.latest_s[index]), inf, columns.latest_s[index]),
    )
    return tuple(task for task in rows if task is not None), batch


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

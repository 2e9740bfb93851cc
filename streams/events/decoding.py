"""Records of a log to the engine's events. Bad input becomes a `Rejected` value, never an exception.

    malformed      the record could not be parsed
    null_value     the message has no value, and `kafka.tombstones` does not have it forget the task of its key
    too_large      the record or one of its ids is longer than the limit
    missing_task   no task, or an empty one           bad_task   neither text nor an exact whole number
    missing_id     no event id, or an empty one       bad_id     neither text nor an exact whole number
    bad_time       not a number of seconds, an ISO 8601 text or a datetime; or later than the log can hold
    bad_feature    a field that the encoder cannot read; the detail names it
    unknown_class  a label that is none of the classes
    bad_label      no label, or not a number          out_of_range   a number outside the regression's range

and, where the event itself is sound (`streams.program.set_aside`):

    wrong_partition  it is not where the events of its task are
    damaged_row      the stored row of its task must not be used

Fields that no encoder reads are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from math import inf, isfinite
from typing import Any, NamedTuple, TypeVar

import numpy as np

from engine.problem import Problem
from engine.stream.events import EventBatch
from engine.types import Float64, Kind
from streams.events.identity import EXACT, identity_of
from streams.events.labels import Refusal, label_reader
from streams.events.record import NULL_VALUE, Place, Polled, Record
from streams.events.times import epoch_seconds, why_no_time
from streams.events.wording import shown, utc

R = TypeVar("R")


MAX_ID_BYTES = 65_536
"""A task or event id longer than this is refused."""


MAX_RECORD_BYTES = 1 << 20
"""A record longer than this is refused unread."""


FIELDS = (dict, Mapping)


NO_VALUE = "null_value"


TO_FORGET = f'{NULL_VALUE}; kafka.tombstones = "forget" has it forget the task that its key names'


NOT_TO_FORGET = f"{NULL_VALUE}, and its key names no task"


OBSERVATION, LABEL = int(Kind.OBSERVATION), int(Kind.LABEL)


class Rejected(NamedTuple):
    """A record that is no event."""

    record: Record
    reason: str
    """A short code, the same for all records with the same fault: it is counted."""
    detail: str
    """What exactly is wrong, in one sentence."""


class Decoded(NamedTuple):
    """The events of a poll, ready for `Engine.fold`, and what had to be refused."""

    tasks: tuple[str, ...]
    """[U] the tasks of the batch, in order of first appearance."""
    events: EventBatch
    records: Sequence[Record]
    """[N] the record of each event."""
    rejected: Sequence[Rejected]


class _Event(NamedTuple):
    """A record whose task, id, time and label are sound."""

    record: Record
    task: str
    id: int
    time_s: float
    y: float


def decode(polled: Sequence[Polled], problem: Problem) -> Decoded:
    """Check and encode the records of a poll; every record comes back, as an event or as `Rejected`."""
    label = label_reader(problem.target)
    checked = [_checked(record, label) for part in polled for record in part.records]
    refused = [verdict for verdict in checked if isinstance(verdict, Rejected)]
    sound = [verdict for verdict in checked if isinstance(verdict, _Event)]
    carrying = [i for i, event in enumerate(sound) if event.record.fields is not None]
    encoded = problem.features.encode([sound[i].record.fields or {} for i in carrying])
    x, carries = np.zeros((len(sound), problem.features.width), np.float32), np.zeros(len(sound), np.bool_)
    x[carrying], carries[carrying] = encoded.x, True
    if encoded.faults:
        faulty = {carrying[i]: detail for i, detail in encoded.faults.items()}
        refused += [Rejected(sound[i].record, "bad_feature", detail) for i, detail in faulty.items()]
        kept = [i for i in range(len(sound)) if i not in faulty]
        sound, x, carries = [sound[i] for i in kept], x[kept], carries[kept]
    incarnations = {(t, part.partition): i for part in polled for t, i in enumerate(part.incarnations)}
    tasks, events = _batch(sound, x, carries, incarnations)
    refused.sort(key=lambda rejected: (rejected.record.partition, rejected.record.offset))
    return Decoded(tasks, events, [event.record for event in sound], refused)


def _batch(
    events: Sequence[_Event], x: Any, has_x: Any, incarnations: Mapping[Place, int]
) -> tuple[tuple[str, ...], EventBatch]:
    """Sound events as arrays."""
    rows: dict[str, int] = {}
    topic = [event.record.topic for event in events]
    partition = [event.record.partition for event in events]
    batch = EventBatch(
        row=np.array([rows.setdefault(event.task, len(rows)) for event in events], np.int64),
        kind=np.array([event.record.kind for event in events], np.uint8),
        id=np.array([event.id for event in events], np.uint64),
        time_s=np.array([event.time_s for event in events], np.float64),
        x=x,
        has_x=has_x,
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


def _checked(record: Record, label: Callable[[Any], float]) -> _Event | Rejected:
    """Everything that is checked record by record."""
    try:
        _check_parsed(record)
        task = _identity(record.task, "task")
        identity = _identity(record.id, "id")
        time_s = _time(record)
        y = label(record.label) if record.kind == LABEL else 0.0
    except Refusal as refusal:
        return Rejected(record, refusal.reason, refusal.detail)
    return _Event(record, task.decode(), event_hash(identity), time_s, y)


def event_hash(identity: bytes) -> int:
    """Hash an event id, given in UTF-8, to the engine's 64 bits."""
    return int.from_bytes(blake2b(identity, digest_size=8).digest(), "little")


def _check_parsed(record: Record) -> None:
    if record.raw is not None and len(record.raw) > MAX_RECORD_BYTES:
        raise Refusal("too_large", f"longer than {MAX_RECORD_BYTES} bytes")
    if record.fault == NULL_VALUE:
        raise Refusal(NO_VALUE, NOT_TO_FORGET if readable_task(record) is None else TO_FORGET)
    if record.fault is not None:
        raise Refusal("malformed", record.fault)
    if record.kind == OBSERVATION and record.fields is None:
        raise Refusal("bad_feature", "an observation without fields")
    if record.fields is not None and not isinstance(record.fields, FIELDS):
        raise Refusal("bad_feature", f"fields: expected a mapping, got {shown(record.fields)}")


def _identity(value: Any, name: str) -> bytes:
    """Write a task's or an event's id, text or a whole number, in UTF-8."""
    if value is None or (isinstance(value, str) and not value):
        raise Refusal(f"missing_{name}", f"no {name}")
    text = identity_of(value)
    if text is None:
        raise Refusal(f"bad_{name}", f"{name}: {_why_no_identity(value)}")
    try:
        written = text.encode()
    except ValueError:  # a lone surrogate
        raise Refusal(f"bad_{name}", f"{name} cannot be written in UTF-8") from None
    if len(written) > MAX_ID_BYTES:
        raise Refusal("too_large", f"{name} of {len(written)} bytes, the limit is {MAX_ID_BYTES}")
    return written


def readable_task(record: Record) -> str | None:
    """The task of a record, refused or not; None where it names none, or could not be parsed."""
    try:
        return _identity(record.task, "task").decode()
    except Refusal:
        return None


def readable_identity(record: Record) -> tuple[str, int] | None:
    """Task and hashed event id of a record, refused or not; None where it names one of them not."""
    try:
        return _identity(record.task, "task").decode(), event_hash(_identity(record.id, "id"))
    except Refusal:
        return None


def _why_no_identity(value: Any) -> str:
    if isinstance(value, float | np.floating) and abs(float(value)) > EXACT:
        return f"{shown(value)} may have lost digits, as a float above 2**53 does; write it as text"
    return f"expected text or a whole number, got {shown(value)}"


def _time(record: Record) -> float:
    time_s = epoch_seconds(record.time)
    if not isfinite(time_s):
        raise Refusal("bad_time", why_no_time(record.time))
    if time_s > record.latest_s:
        raise Refusal(
            "bad_time",
            f"time {shown(record.time)} is {utc(time_s)}, and the log can hold no event after "
            f"{utc(record.latest_s)}: a clock that runs ahead, or another unit than seconds",
        )
    return time_s


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

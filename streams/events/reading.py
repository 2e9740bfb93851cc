"""Records checked one by one, and their features encoded. Bad input becomes a `Rejected` value, never an exception.

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

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from math import isfinite
from typing import Any, NamedTuple

import numpy as np

from engine.problem import Problem
from engine.types import Bool, Float32, Kind
from streams.events.identity import EXACT, identity_of
from streams.events.labels import Refusal, label_reader
from streams.events.record import NULL_VALUE, Record
from streams.events.times import epoch_seconds, why_no_time
from streams.events.wording import shown, utc

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


class Event(NamedTuple):
    """What is sound of a record."""

    task: str
    id: int
    time_s: float
    y: float


class Read(NamedTuple):
    """What became of N records."""

    verdicts: Sequence[Event | Rejected]
    """[N]"""
    x: Float32
    """[N, own width] the features of events in stored form, zeros where there are none."""
    has_x: Bool
    """[N] whether there are."""
    rejected: Sequence[Rejected]
    """In the order of the log."""


def read(records: Sequence[Record], problem: Problem) -> Read:
    """Check and encode records one by one; each comes back, as an event or as `Rejected`."""
    label = label_reader(problem.target)
    verdicts: list[Event | Rejected] = [_checked(record, label) for record in records]
    refused = [verdict for verdict in verdicts if isinstance(verdict, Rejected)]
    carrying = [
        n for n, record in enumerate(records) if record.fields is not None and isinstance(verdicts[n], Event)
    ]
    encoded = problem.features.encode([records[n].fields or {} for n in carrying])
    for i, detail in encoded.faults.items():
        faulty = Rejected(records[carrying[i]], "bad_feature", detail)
        verdicts[carrying[i]] = faulty
        refused.append(faulty)
    x, has_x = np.zeros((len(records), problem.features.width), np.float32), np.zeros(len(records), np.bool_)
    x[carrying], has_x[carrying] = encoded.x, True
    return Read(verdicts, x, has_x, in_log_order(refused))


def in_log_order(rejected: Sequence[Rejected]) -> list[Rejected]:
    """What was refused of some partitions, each in the order of its offsets."""
    return sorted(rejected, key=lambda one: (one.record.partition, one.record.offset))


def _checked(record: Record, label: Callable[[Any], float]) -> Event | Rejected:
    """Everything that is checked record by record."""
    try:
        _check_parsed(record)
        task = _identity(record.task, "task")
        identity = _identity(record.id, "id")
        time_s = _time(record)
        y = label(record.label) if record.kind == LABEL else 0.0
    except Refusal as refusal:
        return Rejected(record, refusal.reason, refusal.detail)
    return Event(task.decode(), event_hash(identity), time_s, y)


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

"""`reptide produce`: the rows of a file as observations and delayed labels in Kafka, in the order of their times.

A row that cannot be read is sent as it is: what a worker makes of it is a dead letter, and nothing is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from threading import Event
from time import monotonic
from typing import Any, NamedTuple

import orjson

from engine.types import Kind
from streams.events.identity import identity_of
from streams.events.record import Record
from streams.logs.base import ReplayLog
from streams.logs.output import OutputWriter

AT_ONCE = 2048
SLICE_S = 0.05
"""At a chosen speed, events go out in portions of about so long."""


class Message(NamedTuple):
    """One event on the wire."""

    key: bytes
    value: bytes


def produce(
    log: ReplayLog,
    topics: Sequence[OutputWriter],
    fields: Collection[str],
    rate: float,
    stopping: Event,
    show: Callable[[int], None],
) -> int:
    """Send a log to its end, at `rate` events a second (0: as fast as it goes); returns how many were sent.

    With two topics, observations go to the first and labels to the second.
    """
    began, sent = monotonic(), 0
    portion = AT_ONCE if rate <= 0 else max(1, min(AT_ONCE, int(rate * SLICE_S)))
    while not stopping.is_set() and (polled := log.poll(portion)):
        [part] = polled
        for topic, output in enumerate(topics):
            chosen = [r for r in part.records if len(topics) == 1 or int(r.kind) == topic]
            messages = [message_of(record, fields) for record in chosen]
            if messages:
                output.append([m.value for m in messages], [m.key for m in messages])
        sent += len(part.records)
        show(sent)
        if rate > 0:
            stopping.wait(max(0.0, began + sent / rate - monotonic()))
    for output in topics:
        output.sync()
    return sent


def message_of(record: Record, fields: Collection[str]) -> Message:
    """An event as plain JSON, keyed by its task; of its features, those in `fields`."""
    if record.fault is not None or record.task is None:
        return Message(b"", record.raw or b"")
    said: dict[str, Any] = {"task": record.task, "id": record.id, "time": record.time}
    if record.kind == Kind.LABEL:
        said["label"] = record.label
    if record.fields is not None:
        said["features"] = {name: record.fields[name] for name in fields if name in record.fields}
    return Message((identity_of(record.task) or str(record.task)).encode(), orjson.dumps(said, default=str))

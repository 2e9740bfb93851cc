"""A Kafka message as a `Record`: CloudEvents' Kafka binding in binary mode, or plain JSON without headers.

    header ce_id           the id of an observation; of a label where its body has none
    header ce_time         event time, where the body has none
    header ce_dataschema   must be the schema configured, where both are there
    key                    the task, where the body has none: text, or text as JSON writes it

The body is a JSON object. With a member "label", even null, it is a label and its "id" is that of its
observation; without one it is an observation. With two input topics the topic decides, not the member. What
else it holds is ignored; whether the values make sense is checked by `streams.events.reading`. A message without
a body (a null value) is no event, but its key still names a task: `kafka.tombstones` decides what that comes to.

CloudEvents 1.0.2, Kafka Protocol Binding, section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, nan
from typing import Any

import orjson

from engine.types import Kind
from streams.events.reading import MAX_RECORD_BYTES
from streams.events.record import NULL_VALUE, Record

Headers = Sequence[tuple[str, bytes]]

FIRST_PRINTABLE = 32
SHOWN_BYTES = 40
OTHER_KEY = 'send the task as plain text, or name it in the body as "task"'

OBSERVATION, LABEL = Kind.OBSERVATION, Kind.LABEL


@dataclass(frozen=True)
class Envelope:
    """How the messages of one stream are taken apart."""

    topics: int = 1
    """1: observations and labels on one topic; 2: observations on the first, labels on the second."""
    dataschema: str | None = None
    """The only `ce_dataschema` accepted; None accepts any."""
    clock_skew_s: float = inf
    """How long after its message was appended an event may take place."""

    def open(
        self,
        place: tuple[int, int],
        offset: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers | None,
        timestamp_ms: int,
    ) -> Record:
        """Take one message apart; what cannot be is a record with a fault. A timestamp below 0 is none."""
        appended_s = timestamp_ms / 1000 if timestamp_ms >= 0 else nan
        try:
            kind, task, identity, time, label, fields = self._opened(place[0], key, value, headers)
            fault = None
        except ValueError as error:
            kind, identity, time, label, fields = Kind(place[0]), None, None, None, None
            task = _task_to_forget(key) if value is None else None
            fault = str(error)
        # Positional and by the shortest way: with names, building the tuple costs as much as parsing it.
        return Record._make((
            offset, kind, task, identity, time, label, fields, 0, value or b"", fault,
            place[0], place[1], key, headers or (), appended_s, appended_s + self.clock_skew_s,
        ))  # fmt: skip

    def _opened(
        self, topic: int, key: bytes | None, value: bytes | None, headers: Headers | None
    ) -> tuple[Kind, Any, Any, Any, Any, Any]:
        """The kind, task, id, time, label and features of a message.

        Raises:
            ValueError: the message cannot be read; says why.

        """
        body = _body(value)
        said = self._said(headers) if headers else {}
        get = body.get
        task = get("task")
        if task is None and key is not None:
            task = _task_of(key)
        time = get("time")
        if time is None:
            time = said.get("ce_time")
        identity = get("id")
        if (topic == 1) if self.topics == 2 else "label" in body:
            return (
                LABEL,
                task,
                said.get("ce_id") if identity is None else identity,
                time,
                get("label"),
                get("features"),
            )
        return OBSERVATION, task, said.get("ce_id", identity), time, None, get("features")

    def _said(self, headers: Headers) -> Mapping[str, str]:
        """The attributes of a CloudEvent that are used."""
        said = {
            name: _text(value, f"header {name}")
            for name, value in headers
            if name in ("ce_id", "ce_time", "ce_dataschema") and value is not None
        }
        schema = said.get("ce_dataschema", self.dataschema)
        if self.dataschema is not None and schema != self.dataschema:
            raise ValueError(
                f"ce_dataschema is {schema!r}, the schema configured is {self.dataschema!r}"[:500]
            )
        return said


def value_of(record: Record) -> bytes | None:
    """The value of a message as it came, which may be null."""
    return None if record.fault == NULL_VALUE else record.raw


def _body(value: bytes | None) -> Mapping[str, Any]:
    if value is None:
        raise ValueError(NULL_VALUE)
    if len(value) > MAX_RECORD_BYTES:
        raise ValueError(f"longer than {MAX_RECORD_BYTES} bytes")
    try:
        body = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}, in {value[:SHOWN_BYTES]!r}") from None
    if not isinstance(body, dict):
        raise ValueError(f"expected a JSON object, got {type(body).__name__}")
    return body


def _text(value: bytes, name: str, way_out: str = "") -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{name} is not UTF-8{way_out}") from None


def _task_to_forget(key: bytes | None) -> str | None:
    """The task that the key of a message without a value names, if it names one."""
    try:
        return None if key is None else _task_of(key)
    except ValueError:
        return None


def _task_of(key: bytes) -> str | None:
    """The task that a key names; JSON's null is none.

    A serialiser that puts the key in quotes, or bytes before it, would otherwise make other tasks in silence.
    """
    if any(byte < FIRST_PRINTABLE for byte in key):
        raise ValueError(f"the key {key[:SHOWN_BYTES]!r} is not text but bytes, such as Avro's; {OTHER_KEY}")
    text = _text(key, f"the key {key[:SHOWN_BYTES]!r}", f"; {OTHER_KEY}")
    if text == "null":
        return None
    if not text.startswith(('"', "{", "[")):
        return text
    try:
        said = orjson.loads(key)
    except orjson.JSONDecodeError:
        return text
    if not isinstance(said, str):
        raise ValueError(
            f"the key {text[:SHOWN_BYTES]!r} is a JSON {type(said).__name__}, not text; {OTHER_KEY}"
        )
    return said

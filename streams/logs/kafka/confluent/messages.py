"""Messages of confluent-kafka as records, those too whose headers it cannot read."""

from __future__ import annotations

from operator import methodcaller

from confluent_kafka import Message

from streams.events.envelope import Envelope
from streams.events.record import NULL_VALUE, Place, Record

UNREADABLE = "confluent-kafka cannot read the message's headers: the name of one is no UTF-8; they are lost"

HEADERS_OF = methodcaller("headers")
"""confluent-kafka 2.16 returns headers with such a name broken, and an error beside them: who looks at them crashes.
Called from C, as here, Python raises SystemError instead; the interpreter's own shortcut does not look."""


def opened(envelope: Envelope, place: Place, message: Message) -> Record:
    """A message as a record; without its headers, and with a fault, where the library cannot read these."""
    try:
        headers, fault = HEADERS_OF(message), None
    except SystemError:  # asked again, it would return them broken
        headers, fault = None, UNREADABLE
    record = envelope.open(
        place, message.offset(), message.key(), message.value(), headers, message.timestamp()[1]
    )
    return record if fault is None or record.fault == NULL_VALUE else record._replace(fault=fault)

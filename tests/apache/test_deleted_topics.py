"""That a topic once deleted stays so: brokers create a topic that somebody asks for, unless they are told not to."""

from __future__ import annotations

from contextlib import suppress

import pytest

from streams.errors import ReptideError
from streams.events.envelope import Envelope
from streams.logs.kafka.group import Connection
from streams.logs.kafka.kafka_python.client import describe
from streams.logs.kafka.outputs import KafkaOutputs, Sent
from streams.logs.kafka.reader import KafkaTopicReader
from tests.kafka_brokers import Broker, apache, group_of, producer_of, topic_of

__all__ = ["apache"]

ATTEMPTS = 3
"""A client that would make it again does so with the first of them."""


@pytest.mark.parametrize("library", ["kafka-python", "confluent"])
def test_a_deleted_topic_is_not_made_again_by_who_reads_or_writes_it(apache: Broker, library: str) -> None:
    from kafka import KafkaAdminClient

    connection, topic = Connection(apache.servers), topic_of(apache, 2, [(b"k", b"{}")])
    member = group_of(library)(connection, f"of {topic}", [topic], Envelope(), 6.0, 1.0)
    outputs = KafkaOutputs(lambda: producer_of(library)(connection, [topic], 1.0))
    reader = KafkaTopicReader(connection, topic)
    while not member.fetch(10, 0.1).records:
        pass
    admin = KafkaAdminClient(bootstrap_servers=apache.servers)
    admin.delete_topics([topic])
    admin.close()
    for _ in range(ATTEMPTS):
        with suppress(ReptideError):
            member.fetch(10, 0.1)
        with suppress(ReptideError):
            reader.read({}, 10, 0.1)
        with suppress(ReptideError):
            outputs.send(topic, [Sent(b"k", b"{}")])
            outputs.sync()
    assert describe(connection, (topic,)) == {}
    for client in (member, reader, outputs):
        with suppress(ReptideError):
            client.close()

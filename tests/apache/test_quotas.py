"""Quotas of Apache Kafka, for what a client reads and writes: they cost time, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from kafka import KafkaAdminClient
from kafka.protocol.admin import AlterClientQuotasRequest as Alter

from streams.events.record import Record
from streams.logs.kafka.group import CLIENT_ID
from streams.logs.kafka.log import KafkaLog
from streams.logs.kafka.outputs import KafkaOutput, KafkaOutputs
from tests.kafka_brokers import Broker, apache, append, topic_of
from tests.streams.test_kafka import joined, library, messages, poll_until, produced

__all__ = ["apache", "joined", "library", "produced"]

RATE = 10_000
"""Bytes a second, over some ten seconds: what comes below that all at once is not held up."""
ROUNDS, BYTES = (30, 5), 4_000
"""So many events: the first are more than the quota lets pass at once."""


@contextmanager
def quota(broker: Broker) -> Iterator[None]:
    """What our clients read and write is bounded, for all of them together."""
    names = ("consumer_byte_rate", "producer_byte_rate")
    admin = KafkaAdminClient(bootstrap_servers=broker.servers)

    def alter(remove: bool) -> None:
        entity = Alter.EntryData.EntityData(entity_type="client-id", entity_name=CLIENT_ID)
        ops = [Alter.EntryData.OpData(key=name, value=float(RATE), remove=remove) for name in names]
        entry = Alter.EntryData(entity=[entity], ops=ops)
        answer = admin._manager.run(admin._manager.send, Alter(entries=[entry], validate_only=False))
        assert answer.entries[0].error_code == 0, answer

    alter(remove=False)
    try:
        yield
    finally:
        alter(remove=True)
        admin.close()


def copy(log: KafkaLog, output: KafkaOutput, into: list[Record]) -> None:
    """One step of a member: poll, say, commit."""
    for part in log.poll(50, 0.05):
        output.append([record.raw or b"" for record in part.records])
        output.sync()
        log.commit(part.after())
        into += part.records


def test_a_member_that_is_throttled_loses_nothing_and_stays_a_member_and_says_so(
    apache: Broker,
    joined: Callable[..., KafkaLog],
    produced: Callable[..., KafkaOutputs],
    library: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    topic, copied = topic_of(apache, 1), topic_of(apache, 1)
    log, output = joined(apache, [topic], durability_lag_s=0.0), produced(apache, copied, timeout_s=30.0)
    records, sent = list[Record](), list[bytes]()
    poll_until([log], lambda: log.assigned() == {0}, records)
    with quota(apache):
        for count in ROUNDS:
            events = [(None, os.urandom(BYTES)) for _ in range(count)]
            append(apache, topic, events)
            sent += [content for _, content in events]
            while len(records) < len(sent):
                copy(log, output.topic(copied), records)
                assert log.assigned() == {0}
    assert [record.offset for record in records] == list(range(sum(ROUNDS)))
    assert [message.value for message in messages(apache, copied, len(sent))] == sent
    told = [record.name for record in caplog.records if "throttled by broker" in record.message]
    assert told
    assert all(name.startswith("kafka" if library == "kafka-python" else "streams") for name in told)

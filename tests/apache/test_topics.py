"""What Apache Kafka does to topics and others' producers write: gaps, ends, beginnings, headers, clocks."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence

import pytest
from confluent_kafka import Producer
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import TopicAlreadyExistsError

from streams.errors import InputError
from streams.events.envelope import Envelope
from streams.events.reading import Rejected
from streams.events.record import Polled, Record
from streams.logs.kafka.group import Connection
from streams.logs.kafka.log import KafkaLog
from streams.logs.kafka.outputs import KafkaOutputs
from streams.logs.kafka.replay import GroupOffsets, KafkaReplay
from tests.kafka_brokers import NUMBERS, Broker, apache, append, topic_of
from tests.streams.test_kafka import (
    PATIENCE_S,
    Clock,
    delete,
    eventually,
    joined,
    label,
    library,
    many,
    messages,
    observation,
    poll,
    poll_until,
    produced,
)

__all__ = ["apache", "joined", "library", "produced"]  # fixtures


def topic_with(broker: Broker, partitions: int = 1, **configs: str) -> str:
    """Create a topic with settings, whose dots are underscores here."""
    topic = f"topic-with-{next(NUMBERS)}-{time.time_ns()}"
    wanted = {name.replace("_", "."): value for name, value in configs.items()}
    admin = KafkaAdminClient(bootstrap_servers=broker.servers)
    admin.create_topics(
        {topic: {"num_partitions": partitions, "replication_factor": 1, "configs": wanted}},
        wait_for_metadata=True,
    )
    admin.close()
    return topic


def produce(
    broker: Broker, topic: str, events: Sequence[tuple[bytes | None, bytes | None]], **more: object
) -> None:
    """Send as librdkafka does."""
    producer = Producer({"bootstrap.servers": broker.servers})
    for key, value in events:
        producer.produce(topic, value, key, **more)
    producer.flush()


def in_transactions(
    broker: Broker, topic: str, transactions: Sequence[tuple[Sequence[tuple[bytes, bytes]], str]]
) -> None:
    """Send events in transactions that are then committed, aborted, or left open."""
    for events, end in transactions:
        producer = Producer({
            "bootstrap.servers": broker.servers, "transactional.id": f"of {topic} {time.time_ns()}",
            "transaction.timeout.ms": 600_000,
        })  # fmt: skip
        producer.init_transactions(PATIENCE_S)
        producer.begin_transaction()
        for key, value in events:
            producer.produce(topic, value, key, partition=0)
        producer.flush()
        if end == "commit":
            producer.commit_transaction(PATIENCE_S)
        elif end == "abort":
            producer.abort_transaction(PATIENCE_S)
        else:
            OPEN.append(producer)


OPEN: list[Producer] = []
"""Let go of, they would abort what they left open."""


def bounds(broker: Broker, topic: str) -> tuple[int, int]:
    """The first offset of partition 0, and the one after its last."""
    consumer, partition = KafkaConsumer(bootstrap_servers=broker.servers), TopicPartition(topic, 0)
    start, end = (ask([partition])[partition] for ask in (consumer.beginning_offsets, consumer.end_offsets))
    consumer.close()
    return start, end


def made_anew(broker: Broker, topic: str) -> bool:
    """Make a topic that was deleted; false while it is not gone yet."""
    try:
        topic_of(broker, 1, name=topic)
    except TopicAlreadyExistsError:
        return False
    return True


def without_lag(log: KafkaLog) -> Callable[[], bool]:
    """Whether a member knows that it has read everything."""
    return lambda: bool(lag := log.lag()) and not any(lag.values())


def folded_by_replay(broker: Broker, topics: Sequence[str]) -> list[object]:
    """The ids that a rebuild would fold."""
    connection = Connection(broker.servers)
    end = GroupOffsets(connection, "g", topics).end()
    replay, ids = KafkaReplay(connection, topics, Envelope(len(topics)), end), []
    while polled := replay.poll(100, 0.1):
        ids += [record.id for part in polled for record in part.records]
    replay.close()
    return ids


class TestTransactions:
    SENT = ((many(3), "commit"), (many(3, first=3), "abort"), (many(3, first=6), "commit"))

    def test_what_was_aborted_is_never_read_and_the_end_is_reached(
        self, apache: Broker, joined: Callable[..., KafkaLog]
    ) -> None:
        topic = topic_of(apache, 1)
        in_transactions(apache, topic, [*self.SENT, (many(2, first=9), "abort")])
        log, records = joined(apache, [topic]), list[Record]()
        poll_until([log], lambda: len(records) >= 6 and without_lag(log)(), records)
        assert [record.id for record in records] == ["e0", "e1", "e2", "e6", "e7", "e8"]
        assert [record.offset for record in records] == [0, 1, 2, 8, 9, 10]
        append(apache, topic, many(1, first=11))
        assert [record.id for record in poll(log, 1)] == ["e11"]

    def test_labels_wait_for_observations_of_a_transaction_and_not_for_its_end_marker(
        self, apache: Broker, joined: Callable[..., KafkaLog]
    ) -> None:
        observations, labels = (topic_of(apache, 1) for _ in range(2))
        append(apache, labels, [label("task0", "e0")])
        in_transactions(apache, observations, self.SENT)
        log = joined(apache, [observations, labels])
        records = poll(log, 7)
        assert [record.topic for record in records] == [0] * 6 + [1]

    def test_what_is_not_ended_yet_is_not_read(self, apache: Broker, joined: Callable[..., KafkaLog]) -> None:
        topic = topic_of(apache, 1)
        in_transactions(apache, topic, [(many(2), "commit"), (many(2, first=2), "open")])
        assert [record.id for record in poll(joined(apache, [topic]), 2)] == ["e0", "e1"]

    def test_a_rebuild_folds_the_same(self, apache: Broker) -> None:
        topic = topic_of(apache, 1)
        in_transactions(apache, topic, [*self.SENT, (many(2, first=9), "abort"), (many(1, first=11), "open")])
        assert folded_by_replay(apache, [topic]) == ["e0", "e1", "e2", "e6", "e7", "e8"]


class TestGaps:
    def compacted(self, broker: Broker) -> str:
        """A topic of which compaction has left the last event of each of three keys, and what came since."""
        topic = topic_with(
            broker,
            cleanup_policy="compact",
            segment_ms="1",
            min_cleanable_dirty_ratio="0.0",
            max_compaction_lag_ms="1",
        )
        for n in range(4):
            produce(broker, topic, [(b"key%d" % k, observation("task", f"{n}-{k}")[1]) for k in range(3)])
            time.sleep(0.01)  # so that each is a segment of its own
        produce(broker, topic, [observation("last", "last")])
        eventually(lambda: len(self.kept(broker, topic)) <= 4)
        return topic

    def kept(self, broker: Broker, topic: str) -> list[int]:
        consumer = KafkaConsumer(bootstrap_servers=broker.servers, auto_offset_reset="earliest")
        partition, offsets = TopicPartition(topic, 0), list[int]()
        consumer.assign([partition])
        end = consumer.end_offsets([partition])[partition]
        while consumer.position(partition) < end:
            offsets += [m.offset for found in consumer.poll(200).values() for m in found]
        consumer.close()
        return offsets

    def test_a_compacted_topic_is_read_over_its_gaps_to_the_end(
        self, apache: Broker, joined: Callable[..., KafkaLog]
    ) -> None:
        topic = self.compacted(apache)
        log, records = joined(apache, [topic], durability_lag_s=0.0), list[Record]()
        poll_until([log], lambda: len(records) >= 4 and without_lag(log)(), records)
        assert [record.offset for record in records] == [9, 10, 11, 12]
        assert folded_by_replay(apache, [topic]) == [record.id for record in records]


class TestBeginnings:
    def test_what_retention_deletes_under_a_stopped_worker_stops_it_or_is_skipped(
        self, apache: Broker, joined: Callable[..., KafkaLog]
    ) -> None:
        topic = topic_with(apache, retention_ms="-1")
        append(apache, topic, many(10))
        clock = Clock()
        log, records = joined(apache, [topic], clock=clock), list[Record]()
        poll_until([log], lambda: len(records) >= 10, records, commit=False)
        log.commit({(0, 0): 3})
        clock.now += 60.0
        log.close()
        self.kept_for(apache, topic, "1")
        eventually(lambda: bounds(apache, topic) == (10, 10))
        self.kept_for(apache, topic, "-1")
        append(apache, topic, many(2, first=10))
        stopped = joined(apache, [topic])
        with pytest.raises(InputError, match=rf"{topic} partition 0: offset 3 .* starts at 10: 7 are lost"):
            poll(stopped, 1)
        stopped.close()
        log = joined(apache, [topic], expired="skip")
        with pytest.warns(RuntimeWarning, match="7 are lost"):
            assert [record.id for record in poll(log, 2)] == ["e10", "e11"]
        assert log.skipped == {(0, 0): 7}

    def kept_for(self, broker: Broker, topic: str, retention_ms: str) -> None:
        from kafka.admin import ConfigResource, ConfigResourceType

        admin = KafkaAdminClient(bootstrap_servers=broker.servers)
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": retention_ms})])
        admin.close()


class TestAnotherTopic:
    def test_one_that_was_deleted_and_made_anew_under_a_worker_is_not_taken_for_the_one_before(
        self, apache: Broker, joined: Callable[..., KafkaLog]
    ) -> None:
        topic = topic_of(apache, 1, many(20))
        log = joined(apache, [topic], durability_lag_s=0.0)
        before = parts(log, 20)[0].incarnations
        delete(apache, topic)
        eventually(lambda: made_anew(apache, topic))
        append(apache, topic, many(5, first=100))
        try:
            polled = parts(log, 5)
        except InputError as refused:  # before or after it was made anew
            assert re.search("The topic was created anew or cut|no topic", str(refused))
        else:
            assert all(part.incarnations != before for part in polled)
            assert [record.offset for part in polled for record in part.records] == list(range(5))


def parts(log: KafkaLog, count: int) -> list[Polled]:
    """Poll until so many records came."""
    found: list[Polled] = []
    deadline = time.monotonic() + PATIENCE_S
    while sum(len(part.records) for part in found) < count:
        assert time.monotonic() < deadline
        found += log.poll(50, 0.1)
    return found


class TestHeaders:
    HEADERS = (
        ("a", None),
        ("a", b"\xff\0"),
        ("a", b""),
        ("n\u00fc\U0001f642", "\u00e9".encode()),
        ("", b"x"),
    )

    def test_of_every_kind_are_read_as_they_are_and_reach_the_dead_letters(
        self,
        apache: Broker,
        joined: Callable[..., KafkaLog],
        produced: Callable[..., KafkaOutputs],
    ) -> None:
        topic, letters = topic_of(apache, 1), topic_of(apache, 1)
        produce(apache, topic, [(b"k", b"{"), observation("ann", "e1")], headers=list(self.HEADERS))
        log, outputs = joined(apache, [topic]), produced(apache, letters)
        bad, good = poll(log, 2)
        assert (list(bad.headers), good.id, good.fault) == (list(self.HEADERS), "e1", None)
        outputs.dead_letters(letters, log.origin).append([Rejected(bad, "malformed", "why")])
        outputs.sync()
        [letter] = messages(apache, letters, 1)
        as_they_came = [header for header in letter.headers if not header[0].startswith("reptide_")]
        assert as_they_came == list(self.HEADERS)

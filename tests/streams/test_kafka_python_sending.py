"""Batches handed to kafka-python's producer whole: they keep their order and numbers, and what fails is told."""

from __future__ import annotations

import os
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition, errors
from kafka.partitioner.default import murmur2
from kafka.producer.record_accumulator import RecordAccumulator
from kafka.producer.sender import Sender
from kafka.producer.transaction_manager import ProducerIdAndEpoch, TransactionManager
from kafka.protocol.producer import ProduceResponse
from kafka.record.memory_records import MemoryRecords

from streams.errors import InputError
from streams.logs.kafka.group import Connection
from streams.logs.kafka.kafka_python import producer
from streams.logs.kafka.kafka_python.batches import Batch, Records, put, split_nothing
from streams.logs.kafka.kafka_python.producer import KafkaPythonProducer, key_hash
from streams.logs.kafka.outputs import Sent
from tests.kafka_brokers import Broker, noida, topic_of
from tests.streams.test_kafka import messages

__all__ = ["noida"]

PLACE = TopicPartition("t", 3)
NOT_LEADER, TOO_LARGE, DUPLICATE = 6, 10, 46


class Sending:
    """kafka-python's producer without its thread and its network: what goes out is asked for, and answered, here."""

    def __init__(self) -> None:
        numbers = TransactionManager()
        numbers.set_producer_id_and_epoch(ProducerIdAndEpoch(7, 1))
        settings = {"transaction_manager": numbers, "retry_backoff_ms": 0}
        self.cluster = SimpleNamespace(
            partitions_for_broker=lambda _: [PLACE],
            leader_for_partition=lambda _: 0,
            request_update=lambda: None,
        )
        self.woken: list[None] = []
        client: Any = SimpleNamespace(cluster=self.cluster, wakeup=lambda: self.woken.append(None))
        self._accumulator = RecordAccumulator(**settings)
        self._sender = Sender(client, None, self._accumulator, guarantee_message_order=True, **settings)
        split_nothing(self)
        self.pending: list[Batch] = []

    def put(self, *values: bytes) -> None:
        """Hand over messages of these values."""
        put(self, "t", {3: [Sent(b"k", value) for value in values]}, self.pending)

    def sent(self) -> Batch:
        """The one batch that goes out now."""
        [batch] = self._accumulator.drain(self.cluster, [0], 1 << 20)[0]
        return batch  # type: ignore[no-any-return]

    def answer(self, batch: Batch, code: int) -> None:
        """As the broker does."""
        answered = ProduceResponse.TopicProduceResponse.PartitionProduceResponse(
            error_code=code, base_offset=0
        )
        self._sender._complete_batch(batch, answered)


def content(batch: Batch) -> tuple[int, list[bytes]]:
    """The number of the first message, and the values of all."""
    written = MemoryRecords(batch.records.buffer()).next_batch()
    return written.base_sequence, [message.value for message in written]


def test_a_batch_is_tried_again_as_it_was_before_what_came_after_it_which_is_numbered_on() -> None:
    sending = Sending()
    sending.put(b"a", b"b", b"c")
    first = sending.sent()
    as_it_was = first.records.buffer()
    sending.put(b"d")
    sending.answer(first, NOT_LEADER)
    sending.put(b"e")
    again = sending.sent()
    assert (again.records.buffer(), content(again)) == (as_it_was, (0, [b"a", b"b", b"c"]))
    sending.answer(again, DUPLICATE)  # the broker had it
    second = sending.sent()
    assert content(second) == (3, [b"d", b"e"])
    sending.answer(second, 0)
    assert [batch.failure for batch in sending.pending] == [None, None]
    assert not sending._accumulator.has_incomplete


def test_who_begins_a_batch_wakes_the_thread_that_sends_it() -> None:
    sending = Sending()
    sending.put(b"a")
    sending.put(b"b")
    assert len(sending.woken) == 1


def test_each_message_has_the_time_at_which_it_was_added(monkeypatch: pytest.MonkeyPatch) -> None:
    at_s = iter([1.0, 1.0, 3.0, 2.0])  # a batch and its messages; the clock is set back
    monkeypatch.setattr("streams.logs.kafka.kafka_python.batches.time", lambda: next(at_s))
    records = Records()
    for value in (b"a", b"b", b"c"):
        records.add([Sent(None, value)])
    records.close()
    batch = MemoryRecords(records.buffer()).next_batch()
    assert (batch.first_timestamp, batch.max_timestamp) == (1_000, 3_000)
    assert [message.timestamp for message in batch] == [1_000, 3_000, 2_000]


@pytest.mark.parametrize(
    ("value", "smaller"), [(b"v" * 9_000, True), (os.urandom(9_000), False)], ids=["even", "random"]
)
def test_a_batch_is_packed_where_that_makes_it_smaller_and_kept_once(value: bytes, smaller: bool) -> None:
    records = Records()
    records.add([Sent(None, value)])
    before = records.size_in_bytes()
    records.close()
    batch = MemoryRecords(records.buffer()).next_batch()
    assert (batch.compression_type, records.size_in_bytes() < before) == (3 if smaller else 0, smaller)
    assert not records._parts


def test_nothing_is_added_to_a_batch_that_waits_to_be_tried_again() -> None:
    sending = Sending()
    sending.put(b"a")
    first = sending.sent()
    sending.answer(first, NOT_LEADER)
    sending.put(b"b")
    again = sending.sent()
    assert content(again) == (0, [b"a"])
    sending.answer(again, 0)
    assert content(sending.sent()) == (1, [b"b"])


def test_a_batch_that_is_too_large_fails_once_and_whole() -> None:
    sending = Sending()
    sending.put(b"a", b"b")
    sending.answer(sending.sent(), TOO_LARGE)
    assert [type(batch.failure) for batch in sending.pending] == [errors.MessageSizeTooLargeError]
    assert not sending._accumulator.has_undrained()


def test_batches_whose_time_is_over_fail_whether_they_were_sent_or_not() -> None:
    sending = Sending()
    sending.put(b"a")
    sending.answer(sending.sent(), NOT_LEADER)
    sending.put(b"b")
    sending._accumulator.config["delivery_timeout_ms"] = 0
    for batch in sending._accumulator.expired_batches():
        sending._sender._complete_batch_with_exception(batch, errors.KafkaTimeoutError("over"))
    assert [type(batch.failure) for batch in sending.pending] == [errors.KafkaTimeoutError] * 2


def test_batches_that_are_open_when_a_producer_is_let_go_are_told_so() -> None:
    sending = Sending()
    sending.put(b"a")
    sending.sent()
    sending.put(b"b")
    sending._accumulator.abort_incomplete_batches()
    assert [type(batch.failure) for batch in sending.pending] == [errors.IllegalStateError] * 2


def test_messages_that_are_sent_one_by_one_go_out_together(noida: Broker) -> None:
    topic = topic_of(noida, 1)
    sender = KafkaPythonProducer(Connection(noida.servers), [topic])
    for n in range(100):
        sender.send(topic, [Sent(b"k", str(n).encode())])
    begun = len(sender._pending)
    sender.flush()
    sender.close()
    assert begun < 50
    assert [int(message.value) for message in messages(noida, topic, 100)] == list(range(100))


def test_of_long_keys_none_is_remembered() -> None:
    kept, key = producer._kept_hash.cache_info().currsize, b"k" * (producer.KEPT_BYTES + 1)
    assert producer.key_hash(key) == murmur2(key) & 0x7FFFFFFF
    assert producer._kept_hash.cache_info().currsize == kept


def test_what_was_sent_before_a_message_that_is_too_large_is_not_forgotten(noida: Broker) -> None:
    topic = topic_of(noida, 2, limits={"max.message.bytes": "3000"})
    sender = KafkaPythonProducer(Connection(noida.servers), [topic])
    refused, too_large = (next(k for n in count() if key_hash(k := b"%d" % n) % 2 == p) for p in (0, 1))
    before = [Sent(refused, os.urandom(500)) for _ in range(20)]
    with pytest.raises(InputError, match=r"max\.message\.bytes"):
        sender.send(topic, [*before, Sent(too_large, b"x" * (5 << 20))])
    with pytest.raises(InputError, match=r"max\.message\.bytes"):
        sender.flush()
    sender.close()


def test_of_a_batch_that_was_acknowledged_the_last_message_is_known(noida: Broker) -> None:
    topic = topic_of(noida, 1)
    sender = KafkaPythonProducer(Connection(noida.servers), [topic])
    sender.send(topic, [Sent(b"k", b"v")] * 10)
    sender.flush()
    known = sender._producer._transaction_manager.last_acked_offset(TopicPartition(topic, 0))
    sender.close()
    assert known == 9


def test_a_batch_that_is_refused_for_several_messages_says_why_itself() -> None:
    batch, refused = Batch(PLACE, Records()), errors.InvalidTimestampError("one or more")
    each = Sender._record_exceptions_fn(None, refused, [(1, "too old"), (2, "too old")], None)
    batch.complete_exceptionally(refused, each)
    assert batch.failure is refused

"""Batches that are read whole by kafka-python's leave, and those that are not: damaged, aborted, of long numbers."""

from __future__ import annotations

import gzip
import struct
from binascii import crc32
from types import SimpleNamespace

import pytest
from kafka import TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder

from streams.logs.kafka.group import Connection
from streams.logs.kafka.kafka_python.client import consumer_of
from streams.logs.kafka.kafka_python.consumer import let_resumed_go_on
from streams.logs.kafka.kafka_python.messages import PartitionMessages, plain_messages
from tests.kafka_brokers import Broker, append, noida, topic_of
from tests.streams.test_kafka import NotUtf8, eventually, many
from tests.streams.test_kafka_python import MARKER, STAMPED, marked, read_with

__all__ = ["noida"]

HEADER = DefaultRecordBatch.HEADER_STRUCT.size

FORGED = {
    # Read as if it had two bytes, each number leaves its third to be the next, and the message is whole all the same.
    "length": b"\xc0\x81\0" + b"\0\0" + b"\xc8\1" + b"k" * 100 + b"\xe8\x7f" + b"v" * 8180 + b"\0",
    "time": b"\x84\1\0" + b"\x80\x80\2" + b"\2\2t" + b"\x72" + b"v" * 57 + b"\0",
    "number": b"\x84\1\0\0" + b"\x80\x80\2" + b"\2t" + b"\x72" + b"v" * 57 + b"\0",
    "key": b"\x10\0\0\0" + b"\x81\x80\2" + b"\0\0",
    "value": b"\x0e\0\0\0\1" + b"\x81\x80\0",
}
"""A message whose number, or a length, has three bytes."""


def batch_of(message: bytes) -> bytes:
    """A batch of one message, as these bytes have it."""
    written = MemoryRecordsBuilder(2, 0, 10**6)
    written.append(1_000, None, None, [])
    written.close()
    batch = bytes(written.buffer())[:HEADER] + message
    return marked(batch[:8] + struct.pack(">i", len(batch) - 12) + batch[12:], 0)


@pytest.mark.parametrize("number", FORGED)
def test_a_message_with_a_number_of_three_bytes_is_read_or_refused_as_by_kafka_python(number: str) -> None:
    batch = batch_of(FORGED[number])
    assert plain_messages(MemoryRecords(batch).next_batch()) is None
    theirs = read_with(Fetcher.PartitionRecords, batch, 0, [1, 1])
    assert read_with(PartitionMessages, batch, 0, [1, 1]) == theirs


@pytest.mark.parametrize("codec", [0, 1, 3, 4])
@pytest.mark.parametrize("stamped", [0, STAMPED])
def test_a_batch_of_short_messages_is_read_whole(codec: int, stamped: int) -> None:
    written = MemoryRecordsBuilder(2, codec, 10**6)
    for n in range(100):
        written.append(1_000 + n, b"k%d" % n, b"v" * n or None, [])
    written.close()
    [*batches] = MemoryRecords(marked(bytes(written.buffer()), stamped))
    assert plain_messages(batches[0]) == [
        (n, b"k%d" % n, b"v" * n or None, (), 1_099 if stamped else 1_000 + n) for n in range(100)
    ]


def test_a_damaged_message_in_a_sound_batch_of_an_old_format_is_refused() -> None:
    inner = MemoryRecordsBuilder(1, 0, 10**6)
    inner.append(1_000, b"k", b"v", [])
    inner.append(1_000, b"k", b"w", [])
    inner.close()
    outer = MemoryRecordsBuilder(1, 0, 10**6)
    outer.append(1_000, None, gzip.compress(bytes(inner.buffer())[:-1] + b"x"), [])
    outer.close()
    batch = bytearray(outer.buffer())
    batch[7], batch[17] = 1, 1  # the offset of its last message; packed by gzip
    batch[12:16] = struct.pack(">I", crc32(batch[16:]))
    theirs = read_with(Fetcher.PartitionRecords, bytes(batch), 0, [1, 1])
    assert read_with(PartitionMessages, bytes(batch), 0, [1, 1]) == theirs
    assert theirs[-1][1]  # by its checksum


def of_a_transaction(key: bytes, attributes: int, offset: int) -> bytes:
    """A batch of one message."""
    written = MemoryRecordsBuilder(2, 0, 10**6, producer_id=7, producer_epoch=0, base_sequence=0)
    written.append(1_000, key, b"", [])
    written.close()
    return struct.pack(">q", offset) + marked(bytes(written.buffer()), attributes)[8:]


def test_of_a_producer_whose_transaction_was_aborted_the_next_is_read() -> None:
    abort, commit = struct.pack(">hh", 0, 0), struct.pack(">hh", 0, 1)
    sent = [(b"aborted", 16), (abort, MARKER), (b"committed", 16), (commit, MARKER)]
    content = b"".join(of_a_transaction(*one, offset) for offset, one in enumerate(sent))
    fetched = read_with(PartitionMessages, content, 0, [5], [SimpleNamespace(first_offset=0, producer_id=7)])
    assert fetched == [(2, b"committed", b"", [], 1_000), (4, False, True)]


def test_what_cannot_be_read_is_refused_though_its_partition_was_paused_as_it_was_met(noida: Broker) -> None:
    topic = topic_of(noida, 2)
    good, bad = TopicPartition(topic, 0), TopicPartition(topic, 1)
    append(noida, topic, many(1), partition=0)
    append(noida, topic, many(1), [(NotUtf8("name"), b"value")], partition=1)
    consumer = consumer_of(Connection(noida.servers))
    consumer.assign([good, bad])
    for partition in (good, bad):
        consumer.seek(partition, 0)
    fetched = consumer._fetcher._completed_fetches
    eventually(lambda: consumer._fetcher.send_fetches() is not None and len(fetched) == 2)
    if fetched[0].topic_partition == bad:
        fetched.reverse()
    assert list(consumer.poll(0, max_records=10)) == [good]  # the other is refused by the next poll
    consumer.pause(bad)
    assert consumer.poll(0) == {}
    consumer.resume(bad)
    let_resumed_go_on(consumer)
    with pytest.raises(CorruptRecordError):
        consumer.poll(0)
    consumer.close()

"""What kafka-python 3 does otherwise than it says, put right; docs/architecture.md lists all of it."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from math import isnan
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord, Fetcher, IsolationLevel
from kafka.net.selector import NetworkSelector
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder
from kafka.record.util import calc_crc32c

from streams.events.envelope import Envelope
from streams.logs.kafka.group import Connection
from streams.logs.kafka.kafka_python import network
from streams.logs.kafka.kafka_python.batches import Records
from streams.logs.kafka.kafka_python.consumer import KafkaGroup
from streams.logs.kafka.kafka_python.messages import Message, PartitionMessages
from streams.logs.kafka.kafka_python.producer import KafkaPythonProducer
from streams.logs.kafka.outputs import Sent
from streams.logs.kafka.replay import KafkaReplay
from tests.kafka_brokers import Broker, append, noida, topic_of
from tests.streams.test_kafka import SESSION, eventually, many

__all__ = ["noida"]


class Hears:
    """The client's side of a connection: what a broker said, and that it has ended it."""

    _sensors = None

    def __init__(self) -> None:
        self.heard, self.ended = b"", False

    def data_received(self, content: bytes) -> None:
        self.heard += content

    def connection_lost(self, _: Exception | None) -> None:
        self.ended = True


@pytest.fixture
def selector() -> Iterator[NetworkSelector]:
    """The thread on which kafka-python does its I/O."""
    selector = NetworkSelector()
    selector.start()
    yield selector
    selector.close()


def test_what_a_broker_says_last_is_heard(selector: NetworkSelector, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.sendall(b"not with this password")
    theirs.close()

    async def connected(*_: Any, **__: Any) -> socket.socket:
        return ours

    monkeypatch.setattr("kafka.net.manager.create_connection", connected)
    hears, watched = Hears(), network.Watched(lambda _: False, selector)

    async def listen() -> None:
        transport = await watched._build_transport(SimpleNamespace(host="a", port=1))
        transport.set_protocol(hears)
        transport.resume_reading()

    selector.run(listen)
    eventually(lambda: hears.ended)
    assert hears.heard == b"not with this password"


def test_a_replay_reads_a_partition_on_that_waited_half_read_for_another(
    noida: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.logs.kafka.replay.KEPT", 10)
    monkeypatch.setattr("streams.logs.kafka.replay.QUIET_S", 5.0)
    topic = topic_of(noida, 2)
    append(noida, topic, many(15), partition=0)
    append(noida, topic, many(30, first=15), partition=1)
    replay = KafkaReplay(Connection(noida.servers), [topic], Envelope(), {(0, 0): 15, (0, 1): 30})
    ids = list[object]()
    while polled := replay.poll(100, 0.1):
        ids += [record.id for part in polled for record in part.records]
    replay.close()
    assert ids == [f"e{n}" for n in range(45)]


def test_a_member_that_waits_for_nothing_when_it_is_polled_joins_all_the_same(noida: Broker) -> None:
    topic = topic_of(noida, 1, many(10))
    member = KafkaGroup(Connection(noida.servers), "g", [topic], Envelope(), *SESSION)
    eventually(lambda: bool(member.fetch(10, 0.0).records))
    member.close()


def test_one_that_is_let_go_with_messages_unsent_leaves_no_thread_behind(noida: Broker) -> None:
    topic, threads = topic_of(noida, 1), threading.active_count()
    sender = KafkaPythonProducer(Connection(noida.servers), [topic])
    sender.send(topic, [Sent(b"k", b"v")])
    sender.flush()
    with noida.stalled():
        sender.send(topic, [Sent(b"k", b"w")])
        sender.close()
        eventually(lambda: threading.active_count() <= threads)


# Any messages, as kafka-python writes and reads them

TEXTS = st.none() | st.sampled_from([b"", b"k", b"x" * 63, b"x" * 64, b"x" * 9000]) | st.binary(max_size=20)
HEADERS = st.lists(st.tuples(st.sampled_from(["", "a", "n\u00fc\U0001f642"]), TEXTS), max_size=2)
SENT = st.builds(Sent, TEXTS, TEXTS, st.just(()) | HEADERS)
STAMPS = st.integers(1_000, 1_100) | st.sampled_from([0, 9_191, 9_192, 2**41])
PLACE = TopicPartition("t", 3)
STAMPED, MARKER = 8, 48
"""Attributes of a batch that the broker stamped, and of one that holds the end of a transaction."""
IDS = [-1, 7, 8]
ABORTED = st.lists(
    st.builds(SimpleNamespace, first_offset=st.integers(0, 10), producer_id=st.sampled_from(IDS[1:])),
    max_size=2,
)


def read_with(
    reader: Any, content: bytes, at: int, portions: list[int], aborted: Sequence[object] = ()
) -> list[Any]:
    """What a fetch gives, so many messages at a time, and where it stands after each; and why it gives no more."""
    fetched = reader(
        at, PLACE, MemoryRecords(content),
        isolation_level=IsolationLevel.READ_COMMITTED, aborted_transactions=aborted,
    )  # fmt: skip
    found = list[Any]()
    try:
        for portion in portions:
            for offset, key, value, headers, stamp_ms in map(as_message, fetched.take(portion)):
                found.append((offset, key, value, list(headers), stamp_ms))
            found.append((fetched.next_fetch_offset, bool(fetched), fetched.bytes_read > 0))
            if not fetched:
                return found
    except Exception as error:  # damaged bytes may fail in any way
        found.append((type(error), "crc" in str(error), fetched.next_fetch_offset))
    return found


def as_message(one: Any) -> Message:
    """A record of kafka-python's as a message."""
    if isinstance(one, ConsumerRecord):
        return one.offset, one.key, one.value, one.headers, -1 if one.timestamp is None else one.timestamp
    return one  # type: ignore[no-any-return]


@given(portions=st.lists(st.lists(SENT, max_size=3), min_size=1, max_size=2).filter(any))
def test_any_messages_are_read_by_kafka_python_as_they_were_sent(portions: list[list[Sent]]) -> None:
    records, before_ms = Records(), int(time.time() * 1000)
    taken = [message for portion in portions for message in portion[: records.add(portion)]]
    records.set_producer_state(7, 1, 40, False)
    records.close()
    records.close()  # as before a retry
    for batch in MemoryRecords(records.buffer()):
        read = [(m.offset, m.key, m.value, m.headers) for m in batch if m.timestamp >= before_ms]
        assert (batch.producer_id, batch.producer_epoch, batch.base_sequence) == (7, 1, 40)
        assert (batch.records_count, batch.last_offset_delta) == (len(taken), len(taken) - 1)
    assert MemoryRecords(records.buffer()).next_batch().validate_crc()
    assert read == [(n, key, value, list(headers)) for n, (key, value, headers) in enumerate(taken)]
    assert (len(taken), records.add(taken)) == (sum(map(len, portions)), 0)


def test_a_batch_holds_what_it_has_room_for_or_one_message() -> None:
    records = Records()
    assert [records.add([Sent(None, b"x" * 70_000)] * 3), records.is_full()] == [1, False]
    records = Records()
    assert [records.add([Sent(None, b"x" * 200_000)] * 3), records.is_full()] == [1, True]


@st.composite
def batches(draw: Any) -> bytes:
    """Batches as kafka-python writes them, of old formats too, with sound checksums or others; some cut off."""
    content, offset = b"", draw(st.integers(0, 5))
    for _ in range(draw(st.integers(1, 3))):
        form, codec = draw(st.sampled_from([(0, 1), (1, 0), (1, 3), (2, 0), (2, 0), (2, 1), (2, 3), (2, 4)]))
        attributes = draw(st.sampled_from([0, 0, STAMPED, 16, 16, MARKER]))
        whose = {"producer_id": draw(st.sampled_from(IDS)), "producer_epoch": 0, "base_sequence": 0}
        written = MemoryRecordsBuilder(form, codec, 10**6, **(whose if form == 2 else {}))
        sent = draw(st.lists(SENT, min_size=1, max_size=4))
        if attributes == MARKER and form == 2:
            sent = [Sent(struct.pack(">hh", 0, draw(st.integers(0, 1))), b"")]
        for key, value, headers in sent:
            written.skip(draw(st.sampled_from([0, 0, 0, 1, 70])))
            written.append(draw(STAMPS), key, value, list(headers) if form == 2 else [])
        count = written.next_offset()
        written.close()
        sound = draw(st.sampled_from([True] * 5 + [False]))
        content += struct.pack(">q", offset) + marked(bytes(written.buffer()), attributes, sound=sound)[8:]
        offset += count + draw(st.sampled_from([0, 3]))
    return content[: len(content) - draw(st.sampled_from([0, 0, 0, 1, 40]))]


def marked(batch: bytes, attributes: int, *, sound: bool = True) -> bytes:
    """A batch with other attributes, and a checksum that fits them or not."""
    changed = bytearray(batch)
    if batch[16] == 2:
        changed[22] ^= attributes
        changed[17:21] = struct.pack(">I", calc_crc32c(memoryview(changed)[21:]) ^ (not sound))
    elif not sound:
        changed[-1] ^= 1
    return bytes(changed)


@given(batches(), st.integers(0, 80), st.lists(st.integers(1, 5), min_size=1, max_size=12), ABORTED)
def test_any_batches_are_read_and_refused_as_by_kafka_python(
    content: bytes, at: int, portions: list[int], aborted: list[object]
) -> None:
    theirs = read_with(Fetcher.PartitionRecords, content, at, portions, aborted)
    assert read_with(PartitionMessages, content, at, portions, aborted) == theirs


def test_a_message_of_the_oldest_format_has_no_time() -> None:
    written = MemoryRecordsBuilder(0, 0, 10**6)
    written.append(1_000, b"k", b"{}", [])
    written.close()
    [message] = PartitionMessages(0, PLACE, MemoryRecords(bytes(written.buffer()))).take(5)
    assert message == (0, b"k", b"{}", [], -1)
    assert isnan(Envelope().open((0, 3), *message).appended_s)


def test_whatever_byte_of_a_batch_is_another_it_is_read_or_refused_as_by_kafka_python() -> None:
    written = MemoryRecordsBuilder(2, 0, 10**6)
    for key, value in ((b"k", b"v" * 70), (None, None), (b"key", b"")):
        written.append(1_000, key, value, [])
    written.close()
    batch, refused = bytes(written.buffer()), 0
    for place in range(57, len(batch)):
        for bits in (1, 2, 64, 128, 255):
            changed = marked(batch[:place] + bytes([batch[place] ^ bits]) + batch[place + 1 :], 0)
            theirs = read_with(Fetcher.PartitionRecords, changed, 0, [1, 1, 1, 1])
            assert read_with(PartitionMessages, changed, 0, [1, 1, 1, 1]) == theirs
            refused += isinstance(theirs[-1][0], type)
    assert refused > 90

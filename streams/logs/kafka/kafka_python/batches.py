"""Messages to send, handed to kafka-python by the batch: its own `send` costs 15 us a message, in Python.

What becomes of a batch is kafka-python's as ever: when it goes out and where, the number by which a broker knows a
repeat, and retries. Messages are laid out as in format 2, https://kafka.apache.org/documentation/#messageformat.
"""

# ruff: noqa: SLF001 - no public way takes a batch

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from time import time

from kafka import KafkaProducer, TopicPartition
from kafka.codec import lz4_encode
from kafka.errors import MessageSizeTooLargeError
from kafka.producer.producer_batch import ProducerBatch
from kafka.producer.record_accumulator import RecordAccumulator
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.util import calc_crc32c

from streams.events.envelope import Headers
from streams.logs.kafka.outputs import MAX_MESSAGE_BYTES, Sent

BATCH_BYTES = 131_072
"""So many a batch holds before they are compressed; or one message, however large it is."""

FORMAT, NONE, LZ4 = 2, -1, DefaultRecordBatch.CODEC_LZ4
HEADER = DefaultRecordBatch.HEADER_STRUCT
NULL, NO_ATTRIBUTES, NO_HEADERS = b"\1", b"\0", b"\0"
CHECKED_FROM, LENGTH_FROM = DefaultRecordBatch.ATTRIBUTES_OFFSET, DefaultRecordBatch.AFTER_LEN_OFFSET


def split_nothing(producer: KafkaProducer) -> None:
    """Have a batch that the topic does not take refused, once.

    Left alone, a producer splits it, and never says what became of the halves: whoever waits for them is told an
    error of no kind, again and again (kafka-python 3.0.12).
    """
    producer._sender._can_split = lambda *_: False


def put(
    producer: KafkaProducer, topic: str, parted: Mapping[int, Sequence[Sent]], pending: list[Batch]
) -> None:
    """Hand over messages by partition, to go out in their order; the batches begun with them are added to `pending`.

    Raises:
        MessageSizeTooLargeError: a message is, and it and what comes after it is not handed over.

    """
    before = len(pending)
    for partition, messages in parted.items():
        pending += _put(producer._accumulator, TopicPartition(topic, partition), messages)
    if len(pending) > before:
        producer._sender.wakeup()


def _put(accumulator: RecordAccumulator, place: TopicPartition, messages: Sequence[Sent]) -> Iterator[Batch]:
    """Fill the last batch of a partition, and as many more as are needed."""
    left = messages
    with accumulator._tp_lock(place):
        waiting = accumulator._batches[place]
        if waiting:
            left = left[waiting[-1].records.add(left) :]
        while left:
            batch = Batch(place, Records())
            left = left[batch.records.add(left) :]
            if batch.records.size_in_bytes() > MAX_MESSAGE_BYTES:
                raise MessageSizeTooLargeError
            accumulator._incomplete.add(batch)
            waiting.append(batch)
            yield batch


class Batch(ProducerBatch):  # type: ignore[misc]
    """Messages of one partition that are sent together."""

    records: Records

    def complete_exceptionally(self, error: Exception, _: object) -> bool:
        """Note why the batch was refused: said of each message, an error of no kind may stand in its place."""
        return bool(super().complete_exceptionally(error, lambda _: error))

    @property
    def failure(self) -> Exception | None:
        """Why its messages were not taken, once it is done."""
        _, _, failure_of = self.produce_future.value
        return None if failure_of is None else failure_of(0)


class Records:
    """The messages of a batch: what kafka-python asks of its own `MemoryRecordsBuilder`."""

    def __init__(self) -> None:
        self.producer_id = self.producer_epoch = self.base_sequence = NONE
        self._parts = list[bytes]()
        self._count, self._size = 0, HEADER.size
        self._first_ms = self._latest_ms = int(time() * 1000)
        self._written = b""

    def add(self, messages: Sequence[Sent]) -> int:
        """Add messages while there is room, the first to a batch always; returns how many."""
        if self._written:
            return 0
        now_ms, join = int(time() * 1000), b"".join
        self._latest_ms = max(self._latest_ms, now_ms)
        begins = NO_ATTRIBUTES + varint(now_ms - self._first_ms)
        for added, (key, value, headers) in enumerate(messages):
            of_key, key = (NULL, b"") if key is None else (varint(len(key)), key)
            of_value, value = (NULL, b"") if value is None else (varint(len(value)), value)
            ends = _headers(headers) if headers else NO_HEADERS
            message = join((begins, varint(self._count), of_key, key, of_value, value, ends))
            length = varint(len(message))
            filled = self._size + len(length) + len(message)
            if filled > BATCH_BYTES and self._count:
                return added
            self._parts += length, message
            self._size, self._count = filled, self._count + 1
        return len(messages)

    def next_offset(self) -> int:
        """How many messages there are."""
        return self._count

    def size_in_bytes(self) -> int:
        """Of the batch, as it is now."""
        return len(self._written) or self._size

    def is_full(self) -> bool:
        """Whether nothing can be added."""
        return bool(self._written) or self._size >= BATCH_BYTES

    def set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int, _: bool) -> None:
        """Number the batch, so that a broker knows a repeat."""
        self.producer_id, self.producer_epoch = producer_id, producer_epoch
        self.base_sequence = base_sequence

    def close(self) -> None:
        """Write the batch; asked for again, as before a retry, it stays as it is."""
        if self._written:
            return
        plain = b"".join(self._parts)
        packed = lz4_encode(plain)
        codec, content = (LZ4, packed) if len(packed) < len(plain) else (0, plain)
        header = (0, HEADER.size - LENGTH_FROM + len(content), 0, FORMAT)
        rest = (
            codec, self._count - 1, self._first_ms, self._latest_ms,
            self.producer_id, self.producer_epoch, self.base_sequence, self._count,
        )  # fmt: skip
        checked = HEADER.pack(*header, 0, *rest)[CHECKED_FROM:] + content
        self._written = HEADER.pack(*header, calc_crc32c(checked), *rest)[:CHECKED_FROM] + checked
        self._parts.clear()

    def buffer(self) -> bytes:
        """The batch as it goes out."""
        return self._written


@lru_cache(maxsize=65_536)
def varint(number: int) -> bytes:
    r"""Write a number as messages hold it: 7 bits a byte, the lowest first, and its sign in the lowest of all.

    >>> varint(0), varint(63), varint(64), varint(-1)
    (b'\x00', b'~', b'\x80\x01', b'\x01')
    """
    left, written = 2 * number if number >= 0 else -2 * number - 1, bytearray()
    while left > 127:
        written.append(left & 127 | 128)
        left >>= 7
    return bytes((*written, left))


def _headers(headers: Headers) -> bytes:
    """How many headers there are, and each."""
    parts = [varint(len(headers))]
    for name, text in headers:
        written = name.encode()
        parts += varint(len(written)), written, *((NULL,) if text is None else (varint(len(text)), text))
    return b"".join(parts)

"""Messages as kafka-python fetched them, parsed a batch at a time: its own way costs 5 us a message, in Python.

Checksums, transactions, gaps and positions are kafka-python's as ever, and so is any batch with a message that is not
plainly sound: what it refuses is refused, at the same place.

Apache Kafka, message format 2: https://kafka.apache.org/documentation/#messageformat.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from kafka import KafkaConsumer
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecordBatch

Message = tuple[int, bytes | None, bytes | None, Sequence[tuple[str, bytes]], int]
"""Offset, key, value, headers, and milliseconds since the epoch (below 0: none)."""

FORMAT = 2
GOES_ON = 128
"""A byte of a number from here on is not its last."""
LONG = GOES_ON * GOES_ON
"""A number from here on has more than two bytes."""


def read_by_batch(consumer: KafkaConsumer) -> None:
    """Have a consumer's `poll` give a `Message` where it gives a `ConsumerRecord`."""
    consumer._fetcher.PartitionRecords = PartitionMessages  # noqa: SLF001 - no public way says how messages are parsed


class PartitionMessages(Fetcher.PartitionRecords):  # type: ignore[misc]
    """What one fetch brought of a partition: its messages, in order."""

    _unreadable: Exception | None = None

    def take(self, n: int | None = None) -> list[Message]:
        """At most that many next messages; one that cannot be read is refused whenever it is asked for.

        Left alone, it is refused once. Where that was not heard of, as the partition was paused meanwhile, the poll
        that asks again never returns (kafka-python 3.0.12).
        """
        if self._unreadable is None:
            try:
                messages: list[Message] = super().take(n)
            except Exception as error:  # damaged bytes may fail in any way
                self._unreadable = error
            else:
                return messages
        raise self._unreadable

    def _unpack_records(self, partition: Any, records: Any, *_: Any) -> Iterator[Message]:
        for whole in super()._unpack_records(partition, _Batches(records, self), None, None):
            for message in whole.value:
                self.next_fetch_offset = message[0] + 1
                yield message

    def _maybe_skip_record(self, message: Message) -> bool:
        return bool(message[0] < self.fetch_offset)


class _Batches:
    """The batches of a fetch, each of which holds one record: all of its messages."""

    def __init__(self, batches: Any, fetched: PartitionMessages) -> None:
        self._batches, self._fetched = batches, fetched

    def next_batch(self) -> _Batch | None:
        """The next; None at the end."""
        batch = self._batches.next_batch()
        return None if batch is None else _Batch(batch, self._fetched)


class _Batch:
    """A batch as it is, but for what it is made of."""

    def __init__(self, batch: Any, fetched: PartitionMessages) -> None:
        self._batch, self._fetched = batch, fetched

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)  # a marker of a transaction

    def __iter__(self) -> Iterator[_Whole]:
        yield _Whole(self._batch, self._fetched)


class _Whole:
    """The messages of a batch, as the one record that kafka-python takes them for."""

    key = checksum = None
    headers = ()
    timestamp = timestamp_type = 0

    def __init__(self, batch: Any, fetched: PartitionMessages) -> None:
        self._batch = batch
        self.value, self.size_in_bytes = self, batch.size_in_bytes
        self.offset = fetched.next_fetch_offset - 1  # where to go on stays as it is until a message is taken

    def validate_crc(self) -> bool:
        """The batch's was looked at; of an older format, each message's is once it is read."""
        return True

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[Message]:
        plain = plain_messages(self._batch) if self._batch.magic == FORMAT else None
        return self._one_by_one() if plain is None else iter(plain)

    def _one_by_one(self) -> Iterator[Message]:
        """As kafka-python itself reads them."""
        for one in self._batch:
            if not one.validate_crc():
                raise CorruptRecordError(f"Record at offset {one.offset} failed crc check")
            stamp_ms = -1 if one.timestamp is None else one.timestamp  # the oldest format has none
            yield one.offset, one.key, one.value, one.headers, stamp_ms


def plain_messages(batch: DefaultRecordBatch) -> list[Message] | None:
    """The messages of a batch of format 2; None where one has headers, or 8 kB, or is not what it should be."""
    content = bytes(iter(batch)._buffer)  # noqa: SLF001 - `iter` unpacks it, and no public way gives it out
    at = 0 if batch.compression_type else batch.HEADER_STRUCT.size
    try:
        messages = _short_ones(content, at, batch.records_count, batch.base_offset, batch.first_timestamp)
    except IndexError:
        return None
    if messages and batch.timestamp_type == batch.LOG_APPEND_TIME:
        return [(*message[:-1], batch.max_timestamp) for message in messages]
    return messages


def _short_ones(
    content: bytes, at: int, count: int, first_offset: int, first_ms: int
) -> list[Message] | None:
    """Messages one after the other: length, attributes, time, number, key, value, and how many headers.

    Each number is one byte or two: a sign in the lowest bit of the first, and 7 bits of the number in the second. To
    call a function for each, or to loop over bytes, would take three times as long.
    """
    messages = list[Message]()
    for _ in range(count):
        length, at = content[at], at + 1
        if length >= GOES_ON:
            length, at = length + GOES_ON * (content[at] - 1), at + 1
        end, attributes = at + length // 2, content[at]
        since_ms, at = content[at + 1], at + 2
        if since_ms >= GOES_ON:
            since_ms, at = since_ms + GOES_ON * (content[at] - 1), at + 1
        number, at = content[at], at + 1
        if number >= GOES_ON:
            number, at = number + GOES_ON * (content[at] - 1), at + 1
        of_key, at = content[at], at + 1
        if of_key >= GOES_ON:
            of_key, at = of_key + GOES_ON * (content[at] - 1), at + 1
        key_at = at
        at += 0 if of_key & 1 else of_key // 2
        key = None if of_key & 1 else content[key_at:at]
        of_value, at = content[at], at + 1
        if of_value >= GOES_ON:
            of_value, at = of_value + GOES_ON * (content[at] - 1), at + 1
        value_at = at
        at += 0 if of_value & 1 else of_value // 2
        value = None if of_value & 1 else content[value_at:at]
        headers, at = content[at], at + 1
        if at != end or attributes or headers or (length | number) & 1:
            return None
        if (length | since_ms | number | of_key | of_value) >= LONG:
            return None
        time_ms = first_ms + (since_ms >> 1 ^ -(since_ms & 1))
        messages.append((first_offset + number // 2, key, value, (), time_ms))
    return messages if at == len(content) else None

"""What every log promises: records in order, each once, and again from where nothing was committed."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import orjson
import pytest

from engine.features.columns import Numeric
from engine.features.encoder import Features
from engine.types import Kind
from streams.events.envelope import Envelope
from streams.events.record import Polled, Record
from streams.logs.base import EventLog
from streams.logs.file.log import FileLog, TableColumns
from streams.logs.kafka.group import Connection
from streams.logs.kafka.log import KafkaLog
from streams.logs.memory import MemoryLog
from tests.kafka_brokers import Broker, group_of, noida, topic_of

__all__ = ["noida"]

PATIENCE_S = 60.0


class Stored(Protocol):
    """Observations 0 to n - 1 in a log of one partition, which outlives who reads it."""

    def open(self) -> EventLog:
        """Begin to read, as a process that was just started."""
        ...

    def end(self, log: EventLog) -> None:
        """The process ends, long after its last commit."""
        ...


class InMemory:
    def __init__(self, events: list[dict[str, Any]]) -> None:
        self.log = MemoryLog(
            Record(0, Kind.OBSERVATION, e["task"], e["id"], e["time"], fields=e["features"]) for e in events
        )

    def open(self) -> EventLog:
        self.log.seek(self.log.committed())
        return self.log

    def end(self, log: EventLog) -> None:
        pass


class InFile:
    def __init__(self, events: list[dict[str, Any]], directory: Path) -> None:
        self.path, self.state = directory / "events.jsonl", directory / "state"
        rows = [
            orjson.dumps({**e["features"], "task": e["task"], "id": e["id"], "time": e["time"]})
            for e in events
        ]
        self.path.write_bytes(b"\n".join(rows))

    def open(self) -> EventLog:
        columns = TableColumns(task=("task",), time="time", id="id")
        return FileLog(self.path, columns, Features((Numeric("a"),)), self.state)

    def end(self, log: EventLog) -> None:
        pass


class InKafka:
    def __init__(self, events: list[dict[str, Any]], broker: Broker, library: str) -> None:
        self.connection, self.group_client = Connection(broker.servers), group_of(library)
        self.topic = topic_of(broker, 1, [(e["task"].encode(), orjson.dumps(e)) for e in events])
        self.now = 0.0

    def open(self) -> EventLog:
        client = self.group_client(self.connection, f"of {self.topic}", [self.topic], Envelope(), 6.0, 1.0)
        return KafkaLog(client, [self.topic], clock=lambda: self.now)

    def end(self, log: EventLog) -> None:
        assert isinstance(log, KafkaLog)
        self.now += 60.0
        log.close()


Store = Callable[[int], Stored]


@pytest.fixture(params=["memory", "file", "kafka-python", "confluent"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    def of(count: int) -> Stored:
        events = [
            {"task": "ann", "id": f"e{n}", "time": 100.0 + n, "features": {"a": n}} for n in range(count)
        ]
        if request.param == "memory":
            return InMemory(events)
        if request.param == "file":
            return InFile(events, tmp_path)
        return InKafka(events, request.getfixturevalue("noida"), request.param)

    return of


@pytest.fixture
def reading() -> Iterator[Callable[[Stored], EventLog]]:
    """Opens logs, and lets go of those of Kafka at the end."""
    opened: list[EventLog] = []

    def read(stored: Stored) -> EventLog:
        opened.append(stored.open())
        return opened[-1]

    yield read
    for log in opened:
        if isinstance(log, KafkaLog):
            log.close()


def poll(log: EventLog, count: int, max_events: int = 100) -> list[Record]:
    """Poll until so many records came."""
    records: list[Record] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(records) < count and time.monotonic() < deadline:
        records += [r for part in log.poll(min(max_events, count - len(records)), 0.2) for r in part.records]
    assert len(records) == count
    return records


class TestEveryLog:
    def test_records_come_in_order_each_once(
        self, store: Store, reading: Callable[[Stored], EventLog]
    ) -> None:
        log = reading(store(10))
        records = poll(log, 10, max_events=3)
        assert [record.id for record in records] == [f"e{n}" for n in range(10)]
        offsets = [record.offset for record in records]
        assert offsets == sorted(set(offsets))
        assert log.poll(10, 0.1) == []

    def test_a_record_is_the_event_as_it_was_written(
        self, store: Store, reading: Callable[[Stored], EventLog]
    ) -> None:
        [record] = poll(reading(store(1)), 1)
        assert (record.kind, record.task, record.id, record.time) == (Kind.OBSERVATION, "ann", "e0", 100.0)
        assert record.fields is not None
        assert record.fields["a"] == 0
        assert (record.topic, record.partition, record.fault) == (0, 0, None)

    def test_never_more_come_than_were_asked_for(
        self, store: Store, reading: Callable[[Stored], EventLog]
    ) -> None:
        log, sizes = reading(store(10)), list[int]()
        deadline = time.monotonic() + PATIENCE_S
        while sum(sizes) < 10 and time.monotonic() < deadline:
            sizes.append(sum(len(part.records) for part in log.poll(4, 0.2)))
        assert sum(sizes) == 10
        assert max(sizes) <= 4

    def test_the_position_is_that_of_the_first_record(
        self, store: Store, reading: Callable[[Stored], EventLog]
    ) -> None:
        log, parts = reading(store(9)), list[Polled]()
        deadline = time.monotonic() + PATIENCE_S
        while sum(len(part.records) for part in parts) < 9 and time.monotonic() < deadline:
            parts += log.poll(4, 0.2)
        assert [part.position for part in parts] == [part.records[0].offset for part in parts]

    def test_after_a_restart_it_goes_on_behind_what_was_committed(
        self, store: Store, reading: Callable[[Stored], EventLog]
    ) -> None:
        stored = store(10)
        log = reading(stored)
        fourth = poll(log, 6)[3]
        log.commit({(0, 0): fourth.offset + 1})
        stored.end(log)
        assert [record.id for record in poll(reading(stored), 6)] == [f"e{n}" for n in range(4, 10)]

    def test_what_was_never_committed_comes_again(
        self, store: Store, reading: Callable[[Stored], EventLog]
    ) -> None:
        stored = store(5)
        log = reading(stored)
        before = poll(log, 5)
        stored.end(log)
        again = poll(reading(stored), 5)
        assert [(r.offset, r.id) for r in again] == [(r.offset, r.id) for r in before]

    def test_the_incarnation_outlives_a_restart(
        self, store: Store, reading: Callable[[Stored], EventLog]
    ) -> None:
        stored, incarnations = store(1), set()
        for _ in range(2):
            log, deadline = reading(stored), time.monotonic() + PATIENCE_S
            while not (polled := log.poll(1, 0.2)) and time.monotonic() < deadline:
                pass
            incarnations.add(polled[0].incarnations)
            stored.end(log)
        [(incarnation,)] = incarnations
        assert 0 <= incarnation < 2**63

    def test_the_origin_tells_one_record_from_another(
        self, store: Store, reading: Callable[[Stored], EventLog]
    ) -> None:
        log = reading(store(2))
        one, other = map(log.origin, poll(log, 2))
        assert one != other
        assert re.sub(r"\b\d+\b", "", one) == re.sub(r"\b\d+\b", "", other)

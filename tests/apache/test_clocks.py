"""Machines whose clocks are wrong, of producers and of workers, on Apache Kafka, which has a clock of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Producer

from engine.features.columns import Numeric
from engine.features.encoder import Features
from engine.problem import Problem
from engine.targets import Classification
from streams.errors import InputError
from streams.events.decoding import Decoded, decode
from streams.events.envelope import Envelope
from streams.logs.kafka.confluent import producer as confluent_producer
from streams.logs.kafka.group import Connection
from streams.logs.kafka.log import KafkaLog
from streams.logs.kafka.outputs import KafkaOutputs
from streams.logs.kafka.topics import Topics, create
from tests.apache.test_topics import parts, produce, topic_with
from tests.kafka_brokers import Broker, apache, group_of, topic_of
from tests.streams.test_kafka import SESSION, library, messages, produced

__all__ = ["apache", "library", "produced"]  # fixtures

PROBLEM = Problem(Features((Numeric("a"),)), Classification((0, 1)))
HOUR_S = 3600.0


def read(broker: Broker, topic: str, library: str) -> Decoded:
    """One message, as a worker decodes it."""
    client = group_of(library)(
        Connection(broker.servers), f"of {topic}", [topic], Envelope(clock_skew_s=HOUR_S), *SESSION
    )
    log = KafkaLog(client, [topic])
    decoded = decode(parts(log, 1), PROBLEM)
    log.close()
    return decoded


def event(at_s: float) -> bytes:
    return b'{"task": "ann", "id": "e1", "time": %f, "features": {"a": 1}}' % at_s


@pytest.mark.parametrize(("stamped", "refused"), [("CreateTime", 1), ("LogAppendTime", 0)])
def test_of_a_machine_that_is_behind_only_its_own_stamps_have_its_events_refused(
    apache: Broker, stamped: str, refused: int, library: str
) -> None:
    topic, now = topic_with(apache, message_timestamp_type=stamped), time.time()
    produce(apache, topic, [(b"ann", event(now))], timestamp=round(1000 * (now - 2 * HOUR_S)))
    decoded = read(apache, topic, library)
    assert [one.reason for one in decoded.rejected] == ["bad_time"] * refused
    assert len(decoded.events) == 1 - refused


@pytest.mark.parametrize(("ahead_s", "refused"), [(2 * HOUR_S, 1), (HOUR_S / 2, 0), (-2 * HOUR_S, 0)])
def test_an_event_of_a_wrong_clock_is_refused_where_it_is_ahead_by_more_than_the_skew_alone(
    apache: Broker, ahead_s: float, refused: int, library: str
) -> None:
    topic = topic_with(apache, message_timestamp_type="LogAppendTime")
    produce(apache, topic, [(b"ann", event(time.time() + ahead_s))])
    decoded = read(apache, topic, library)
    assert [one.reason for one in decoded.rejected] == ["bad_time"] * refused


@pytest.mark.parametrize("ahead_s", [2 * HOUR_S, -400 * 24 * HOUR_S])
def test_topics_that_reptide_creates_take_and_keep_what_a_worker_of_any_clock_writes(
    apache: Broker,
    wrong: Callable[[float], None],
    produced: Callable[..., KafkaOutputs],
    library: str,
    ahead_s: float,
) -> None:
    connection, name = Connection(apache.servers), f"clocks-{library}{ahead_s:.0f}"
    create(connection, Topics((f"{name}-in",), (f"{name}-out",), f"{name}-dead"), 1, 1, HOUR_S)
    wrong(ahead_s)
    outputs = produced(apache, f"{name}-out", f"{name}-dead")
    for topic in (f"{name}-out", f"{name}-dead"):
        outputs.topic(topic).append([b"said"])
        outputs.sync()
        [message] = messages(apache, topic, 1)
        assert abs(message.appended_s - time.time()) < HOUR_S


def test_another_topic_refuses_what_a_worker_writes_whose_clock_is_ahead_and_it_says_so(
    apache: Broker, wrong: Callable[[float], None], produced: Callable[..., KafkaOutputs]
) -> None:
    topic = topic_of(apache, 1)
    wrong(2 * HOUR_S)
    outputs = produced(apache, topic)
    outputs.topic(topic).append([b"said"])
    with pytest.raises(InputError, match=r"the clock of this machine .*message.timestamp.type=LogAppendTime"):
        outputs.sync()


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Has producers stamp messages as a machine would whose clock is ahead."""

    def ahead(seconds: float) -> None:
        def stamp() -> int:
            return round(1000 * (time.time() + seconds))

        class ByConfluent(Producer):  # type: ignore[misc]  # a library without types
            def produce(self, *message: Any, **more: Any) -> None:
                super().produce(*message, **more, timestamp=stamp())

        monkeypatch.setattr("streams.logs.kafka.kafka_python.batches.time", lambda: stamp() / 1000)
        monkeypatch.setattr(confluent_producer, "Producer", ByConfluent)

    return ahead

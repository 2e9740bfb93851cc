"""What `streams.logs.kafka.kafka_python` takes from kafka-python's insides: a version without it is told by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import kafka
import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.net.manager import KafkaConnectionManager
from kafka.producer.sender import Sender
from kafka.record.default_records import DefaultRecordBatch

from tests.kafka_brokers import Broker, noida

__all__ = ["noida"]

OF_PRODUCERS = [
    "_accumulator._tp_lock", "_accumulator._batches", "_accumulator._incomplete.add", "_sender.wakeup",
    "_sender._can_split", "_sender.force_close",
]  # fmt: skip
OF_CONSUMERS = [
    "_fetcher.PartitionRecords._unpack_records", "_fetcher.PartitionRecords._maybe_skip_record",
    "_fetcher.PartitionRecords.take", "_fetcher.PartitionRecords.drain", "_fetcher._next_partition_records",
    "_coordinator._do_join_and_sync_async", "_coordinator._on_join_complete_async", "_coordinator.poll",
    "_coordinator.need_rejoin", "_coordinator.request_rejoin", "_coordinator.rebalance_in_progress",
    "_coordinator.ensure_active_group",
]  # fmt: skip


def require(owner: Any, path: str) -> None:
    """Fail in one sentence where there is no such thing."""
    name = owner.__name__ if isinstance(owner, type) else type(owner).__name__
    found = owner
    for part in path.split("."):
        if not hasattr(found, part):
            pytest.fail(
                f"kafka-python {kafka.__version__} has no {name}.{path}, which streams/logs/kafka/kafka_python "
                "needs: see docs/architecture.md, workarounds of kafka-python, or keep to the version before",
                pytrace=False,
            )
        found = getattr(found, part)


@pytest.fixture(scope="module")
def producer(noida: Broker) -> Iterator[KafkaProducer]:
    """One as kafka-python makes it."""
    with closing(KafkaProducer(bootstrap_servers=noida.servers)) as producer:
        yield producer


@pytest.fixture(scope="module")
def consumer(noida: Broker) -> Iterator[KafkaConsumer]:
    """A member of a group as kafka-python makes it."""
    with closing(KafkaConsumer(bootstrap_servers=noida.servers, group_id="g")) as consumer:
        yield consumer


@pytest.mark.parametrize("path", OF_PRODUCERS)
def test_a_producer_has_inside_what_is_used_of_it(producer: KafkaProducer, path: str) -> None:
    require(producer, path)


@pytest.mark.parametrize("path", OF_CONSUMERS)
def test_a_consumer_has_inside_what_is_used_of_it(consumer: KafkaConsumer, path: str) -> None:
    require(consumer, path)


@pytest.mark.parametrize(
    ("owner", "path"), [(DefaultRecordBatch, "_buffer"), (KafkaConnectionManager, "_build_transport")]
)
def test_a_class_has_inside_what_is_used_of_it(owner: type, path: str) -> None:
    require(owner, path)


def test_what_is_missing_is_named_in_one_sentence() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"^kafka-python 3\.\S+ has no Sender\._gone, which .*$"):
        require(Sender, "_gone")

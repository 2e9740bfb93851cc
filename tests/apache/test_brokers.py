"""Three brokers that replicate: what was acknowledged outlives each of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from streams.apache_kafka import ApacheKafka
from streams.logs.group import Connection
from streams.logs.kafka_reader import KafkaTopicReader
from tests.kafka_brokers import Broker, apache_kafka, append, topic_of


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheKafka]:
    with apache_kafka(tmp_path_factory.mktemp("three"), nodes=3) as kafka:
        yield kafka


def test_what_was_acknowledged_is_read_while_any_one_of_the_brokers_is_dead(three: ApacheKafka):
    broker = Broker(three.address, None)
    topic = topic_of(broker, 1, replicas=3)
    for number, node in enumerate(three.nodes):
        node.kill()
        append(broker, topic, [(b"key", b"%d" % number)])
        node.start()
    reader = KafkaTopicReader(Connection(three.address), topic)
    messages, _ = reader.read({}, 10, 10.0)
    reader.close()
    assert [message.value for message in messages] == [b"0", b"1", b"2"]

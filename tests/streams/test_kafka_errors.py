"""What the errors of both client libraries come to: what passes is tried again, what does not stops the process."""

from __future__ import annotations

import re

import pytest
from confluent_kafka import KafkaError, KafkaException
from kafka import errors

from streams.errors import InputError, ReptideError, Unavailable
from streams.logs.kafka import broker_errors
from streams.logs.kafka.confluent import client as confluent_client
from streams.logs.kafka.group import Connection
from streams.logs.kafka.kafka_python import client as kafka_client

AT = Connection("127.0.0.1:9092")
PASSING = {
    "not_leader_for_partition": errors.NotLeaderForPartitionError,
    "leader_not_available": errors.LeaderNotAvailableError,
    "not_enough_replicas": errors.NotEnoughReplicasError,
    "not_enough_replicas_after_append": errors.NotEnoughReplicasAfterAppendError,
    "kafka_storage_error": errors.KafkaStorageError,
    "not_coordinator": errors.NotCoordinatorError,
    "coordinator_not_available": errors.CoordinatorNotAvailableError,
    "coordinator_load_in_progress": errors.CoordinatorLoadInProgressError,
    "fenced_leader_epoch": errors.FencedLeaderEpochError,
    "unknown_leader_epoch": errors.UnknownLeaderEpochError,
    "not_controller": errors.NotControllerError,
    "broker_not_available": errors.BrokerNotAvailableError,
    "unknown": errors.UnknownError,
    "out_of_order_sequence_number": errors.OutOfOrderSequenceNumberError,
    "duplicate_sequence_number": errors.DuplicateSequenceNumberError,
    "unknown_producer_id": errors.UnknownProducerIdError,
    "invalid_producer_id_mapping": errors.InvalidProducerIdMappingError,
    "invalid_producer_epoch": errors.InvalidProducerEpochError,
    "_unknown_broker": errors.UnknownBrokerIdError,
}
LASTING = {
    "_unsupported_feature": "librdkafka",
    "_fenced": "has taken its place",
    "_bad_msg": "damaged",
    "_log_truncation": "created anew, or cut",
}
"""Of librdkafka's own, and what is said of them."""
COMMON = [
    code
    for code in range(1, broker_errors.NEWEST + 1)
    if code not in broker_errors.PASSING and KafkaError(code).name() != f"ERR_{code}?"
]
"""All that the protocol has and that last."""


def of_kafka_python(error: type[Exception]) -> ReptideError:
    with pytest.raises(ReptideError) as caught, kafka_client.in_our_words(AT, "group g"):
        raise error
    return caught.value


def of_confluent(code: int) -> ReptideError:
    with pytest.raises(ReptideError) as caught, confluent_client.in_our_words(AT, "group g"):
        raise KafkaException(KafkaError(code))
    return caught.value


@pytest.mark.parametrize("code", PASSING)
def test_what_passes_when_brokers_come_and_go_is_tried_again(code: str) -> None:
    assert isinstance(of_kafka_python(PASSING[code]), Unavailable)
    assert isinstance(of_confluent(getattr(KafkaError, code.upper())), Unavailable)


@pytest.mark.parametrize("code", COMMON)
def test_what_a_broker_refuses_for_good_is_not_and_both_clients_say_the_same(code: int) -> None:
    said = of_kafka_python(errors.for_code(code)), of_confluent(code)
    assert not any(isinstance(error, Unavailable) for error in said)
    without_name = {re.sub(r" \(\w+\):", ":", str(error)) for error in said}
    assert len(without_name) == 1, said
    assert ":" in str(said[0]) or ";" in str(said[0]), "no way out"


@pytest.mark.parametrize("code", sorted(broker_errors.PASSING))
def test_what_passes_passes_with_both(code: int) -> None:
    assert isinstance(of_kafka_python(errors.for_code(code)), Unavailable)
    assert isinstance(of_confluent(code), Unavailable)


@pytest.mark.parametrize("code", LASTING)
def test_what_lasts_of_the_librarys_own_is_one_sentence_with_the_way_out(code: str) -> None:
    said = of_confluent(getattr(KafkaError, code.upper()))
    assert isinstance(said, InputError)
    assert LASTING[code] in str(said)


def test_a_clock_that_brokers_do_not_take_is_named() -> None:
    assert "the clock of this machine" in str(of_confluent(KafkaError.INVALID_TIMESTAMP))


def test_a_log_that_was_cut_is_said_to_be_by_both() -> None:
    by_kafka_python = kafka_client._translated(errors.LogTruncationError({}), AT, "group g")
    assert str(by_kafka_python) == str(of_confluent(KafkaError._LOG_TRUNCATION))

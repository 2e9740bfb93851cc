"""What the errors of both client libraries come to: what passes is tried again, what does not stops the process."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException
from kafka import errors

from streams.errors import InputError, ReptideError, Unavailable
from streams.logs import confluent_client, kafka_client
from streams.logs.group import Connection

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
    "topic_authorization_failed": errors.TopicAuthorizationFailedError,
    "group_authorization_failed": errors.GroupAuthorizationFailedError,
    "msg_size_too_large": errors.MessageSizeTooLargeError,
}


def of_kafka_python(error: type[Exception]) -> ReptideError:
    with pytest.raises(ReptideError) as caught, kafka_client.in_our_words(AT, "group g"):
        raise error
    return caught.value


def of_confluent(code: str) -> ReptideError:
    with pytest.raises(ReptideError) as caught, confluent_client.in_our_words(AT, "group g"):
        raise KafkaException(KafkaError(getattr(KafkaError, code.upper())))
    return caught.value


@pytest.mark.parametrize("code", PASSING)
def test_what_passes_when_brokers_come_and_go_is_tried_again(code: str):
    assert isinstance(of_kafka_python(PASSING[code]), Unavailable)
    assert isinstance(of_confluent(code), Unavailable)


@pytest.mark.parametrize("code", LASTING)
def test_what_a_broker_refuses_for_good_is_not(code: str):
    assert isinstance(of_kafka_python(LASTING[code]), InputError)
    assert isinstance(of_confluent(code), InputError)

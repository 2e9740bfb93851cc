"""What all of confluent-kafka's clients here share: settings, metadata of topics, and its errors in our words.

A message of librdkafka may quote a setting; ours hold the name of its code only, so that no password is ever in one.
"""

# ruff: noqa: SLF001 - the codes of librdkafka's own errors begin with an underscore

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from confluent_kafka import KafkaError, KafkaException, ThrottleEvent, TopicCollection
from confluent_kafka.admin import AdminClient

from streams.errors import ReptideError, SettingsError, Unavailable
from streams.logs.kafka import broker_errors, refusals
from streams.logs.kafka.group import CLIENT_ID, Connection, InputTopic
from streams.logs.kafka.incarnation import incarnation
from streams.logs.kafka.security import named
from streams.logs.kafka.tokens import Tokens

ANSWER_S = 5.0
"""How long one question to a broker may take."""
POLLED_S = 0.02

LOGIN = {KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED}
LASTING = {
    KafkaError._UNSUPPORTED_FEATURE: "the brokers, or this build of librdkafka, lack what is asked of them",
    KafkaError._NOT_IMPLEMENTED: "this build of librdkafka lacks it",
    KafkaError._FENCED: "another client has taken its place",
    KafkaError._BAD_MSG: "a message is damaged: see the disk of the partition's leader",
    KafkaError._BAD_COMPRESSION: "a message is damaged: see the disk of the partition's leader",
}
"""What mends an error of librdkafka's own that lasts; all others pass."""


def common(connection: Connection) -> dict[str, Any]:
    """Settings of every client."""
    security: dict[str, Any] = {**named(connection.security, 1)}
    checked = "ssl.endpoint.identification.algorithm"
    if checked in security:
        security[checked] = "https" if security[checked] == "true" else "none"
    if connection.tokens:
        connection.tokens.current()  # where there is none, a client would wait 10 s and not say why
        security["oauth_cb"] = _token_giver(connection.tokens)
    return {"bootstrap.servers": connection.servers, "client.id": CLIENT_ID, "log_level": 0, **security}


def tell_throttled(event: ThrottleEvent) -> None:
    """Log that a quota holds us up, as kafka-python does."""
    logging.getLogger(__name__).warning(
        "%s: throttled by broker (%d ms)", event.broker_name, round(1000 * event.throttle_time)
    )


def describe(connection: Connection, topics: tuple[str, ...]) -> Mapping[str, Any]:
    """Metadata of topics, all of which must exist."""
    subject = ", ".join(topics)
    with in_our_words(connection, subject):
        told: list[KafkaError] = []
        admin = AdminClient({**common(connection), "error_cb": told.append})
        asked = admin.describe_topics(TopicCollection(list(topics)), request_timeout=ANSWER_S)
        while not told and not all(answer.done() for answer in asked.values()):
            admin.poll(POLLED_S)
        if told:
            _knock(connection, subject, told)
        described = {}
        try:
            for subject, answer in asked.items():
                described[subject] = answer.result()
        except KafkaException as error:
            failure = translated(error.args[0], connection, subject)
            if not told and isinstance(failure, Unavailable):
                _knock(connection, subject, told)
            raise failure from None
        return described


def _knock(connection: Connection, subject: str, told: Sequence[KafkaError]) -> None:
    """What keeps us out in a sentence: kafka-python says why, unless it lacks a setting that librdkafka has."""
    from streams.logs.kafka.kafka_python.client import knock  # a worker that is let in needs no kafka-python

    try:
        knock(connection, subject, ANSWER_S)
    except (SettingsError, Unavailable) as error:
        if any(one.code() in LOGIN for one in told):
            raise refusals.of_login(connection) from None
        if isinstance(error, Unavailable):
            raise


def input_topics(connection: Connection, topics: tuple[str, ...]) -> tuple[InputTopic, ...]:
    """Topics as they are now; their incarnations are from their ids, where the broker gives them."""
    described = describe(connection, topics)
    return tuple(
        InputTopic(len(described[topic].partitions), incarnation(topic, _id_bytes(described[topic])))
        for topic in topics
    )


@contextmanager
def in_our_words(
    connection: Connection, subject: str, operation: str = "Describe", topics: str = ""
) -> Iterator[None]:
    """Raise what confluent-kafka raises as an error of ours; see `streams.logs.kafka.kafka_python.client`."""
    try:
        yield
    except KafkaException as error:
        raise translated(error.args[0], connection, subject, operation, topics) from None
    except SystemError as error:  # an error that ends a client, raised while it calls us back
        if not isinstance(error.__cause__, KafkaException):
            raise
        raise translated(error.__cause__.args[0], connection, subject, operation, topics) from None
    except RuntimeError:
        raise Unavailable(f"{connection.servers}: the client for {subject} is closed") from None
    except (ValueError, TypeError) as error:
        raise SettingsError(
            f"kafka: a setting for {connection.servers} is not accepted ({type(error).__name__})"
        ) from None


def translated(
    error: KafkaError, connection: Connection, subject: str, operation: str = "Describe", topics: str = ""
) -> ReptideError:
    """An error of librdkafka's as one of ours."""
    code, name = error.code(), error.name()
    if connection.tokens and connection.tokens.failure:
        return connection.tokens.failure
    if code in LOGIN:
        return refusals.of_login(connection)
    if code == KafkaError._UNKNOWN_TOPIC:
        code = KafkaError.UNKNOWN_TOPIC_OR_PART
    if code >= KafkaError.UNKNOWN:
        return broker_errors.of_code(code, name, connection, subject, operation, topics)
    if code == KafkaError._INVALID_ARG:
        return SettingsError(
            f"kafka: a setting for {connection.servers} is not accepted ({name}): check kafka.security"
        )
    if code == KafkaError._LOG_TRUNCATION:
        return broker_errors.cut(connection, subject)
    if code in LASTING:
        return broker_errors.refused(connection, subject, name, LASTING[code])
    return refusals.away(connection, subject, name, closed=False)


def _token_giver(tokens: Tokens) -> Any:
    """Our tokens as librdkafka asks for them; an error raised is told to its clients."""

    def give(_: str | None) -> tuple[str, float, str, dict[str, str]]:
        """Token, when it expires, principal and extensions."""
        token = tokens.current()
        return token.text, token.expires_s, "", tokens.extensions

    return give


def _id_bytes(described: Any) -> bytes | None:
    """A topic's id; None where the broker gives none."""
    number = (described.topic_id.get_most_significant_bits() << 64) | (
        described.topic_id.get_least_significant_bits() & (1 << 64) - 1
    )
    return (number & (1 << 128) - 1).to_bytes(16, "big") if number else None

"""What all of kafka-python's clients here share: settings, and its errors in our words.

A message of kafka-python may quote a whole request; ours name its class only, so that no password is ever in one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from kafka import KafkaAdminClient, KafkaConsumer, errors
from kafka.net.sasl.oauth import AbstractTokenProvider

from streams.errors import InputError, ReptideError, SettingsError
from streams.logs.kafka import broker_errors, refusals
from streams.logs.kafka.group import CLIENT_ID, Connection, InputTopic
from streams.logs.kafka.incarnation import incarnation
from streams.logs.kafka.kafka_python.messages import read_by_batch
from streams.logs.kafka.kafka_python.network import network
from streams.logs.kafka.security import named
from streams.logs.kafka.tokens import Tokens

BOOTSTRAP_MS = 10_000

ANSWER_MS = 5_000
"""How long one question to a broker may take."""

RECONNECT_MS = 1_000
"""How long after a broker came back it may go unnoticed, as with Java's clients; kafka-python's default is 30 s."""

NO_PRODUCER_ID = "[Error 31] ClusterAuthorizationFailedError"
"""What a producer says that was given no id, in an error of no kind."""
TLS_RECORD = re.compile(r"Invalid frame length: (35[12]\d{6})$")
"""A broker's answer that begins as an alert of TLS does (15 03 hexadecimal), taken for a length."""
AWAY = (errors.RetriableError, errors.UnknownBrokerIdError, OSError)
"""No answer of a broker's, and none that lasts."""


class _TokenProvider(AbstractTokenProvider):  # type: ignore[misc]
    """Our tokens as kafka-python asks for them."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def token(self) -> str:
        """A token; where there is none, as if no broker answered: refused for good, a client never tries again."""
        try:
            return self._tokens.current().text
        except ReptideError:
            raise errors.KafkaConnectionError("no token") from None

    def extensions(self) -> dict[str, str]:
        """What the broker is told besides."""
        return self._tokens.extensions


class _Hidden(str):
    """A password that kafka-python, which logs its settings, does not show."""

    def __repr__(self) -> str:
        return "(hidden)"


def common(connection: Connection) -> dict[str, Any]:
    """Settings of every client."""
    security: dict[str, Any] = {
        name: _Hidden(value) if "password" in name else value
        for name, value in named(connection.security, 0).items()
    }
    if "ssl_check_hostname" in security:
        security["ssl_check_hostname"] = security["ssl_check_hostname"] == "true"
    if connection.tokens:
        connection.tokens.current()  # where there is none, a client would try for long and not say why
        security["sasl_oauth_token_provider"] = _TokenProvider(connection.tokens)
    return {
        "bootstrap_servers": connection.servers.split(","),
        "client_id": CLIENT_ID,
        "bootstrap_timeout_ms": BOOTSTRAP_MS,
        "reconnect_backoff_max_ms": RECONNECT_MS,
        **security,
    }


def made(kind: Callable[..., Any], connection: Connection, **settings: Any) -> Any:
    """Make a client. Where it reaches no broker, close what kafka-python 3.0 leaves open: a thread, sockets."""
    opened: list[Any] = []

    def opening(**configs: Any) -> Any:
        """Keep it, to be closed."""
        opened.append(network(lambda error: _refused(error, connection) is not None, **configs))
        return opened[-1]

    try:
        return kind(**{**common(connection), "kafka_client": opening, **settings})
    except (errors.KafkaError, OSError, ValueError, RuntimeError) as error:
        for client in opened:
            client.close()
        if isinstance(error, errors.KafkaTimeoutError) and opened and opened[0]._manager.ended_by_brokers:  # noqa: SLF001
            raise _Ended(*error.args) from None
        raise


class _Ended(errors.KafkaTimeoutError):  # type: ignore[misc]
    """No broker answers, though one took a connection."""


def knock(connection: Connection, subject: str, timeout_s: float) -> None:
    """Raise what keeps us out, as far as brokers say: confluent-kafka says little but that its time is over."""
    with in_our_words(connection, subject):
        made(KafkaAdminClient, connection, bootstrap_timeout_ms=round(timeout_s * 1000)).close()


def consumer_of(connection: Connection, **settings: Any) -> KafkaConsumer:
    """Make a consumer that begins where it is told to, and reads no transaction that was aborted or is under way.

    Its `poll` gives a `Message` where kafka-python's would give a `ConsumerRecord`.
    """
    consumer = made(
        KafkaConsumer,
        connection,
        auto_offset_reset="none",
        isolation_level="read_committed",
        metrics_enabled=False,
        **settings,
    )
    read_by_batch(consumer)
    return consumer


@contextmanager
def in_our_words(
    connection: Connection, subject: str, operation: str = "Describe", topics: str = ""
) -> Iterator[None]:
    """Raise what kafka-python raises as an error of ours.

    Args:
        connection: whose brokers are asked.
        subject: a topic, several, or a group.
        operation: what an ACL may forbid.
        topics: on which topics, where the subject is none.

    Raises:
        Unavailable: the brokers do not answer just now, or whoever gives tokens does not.
        InputError: they refuse, and would again.
        SettingsError: kafka-python does not take a setting.

    """
    try:
        yield
    except (errors.KafkaError, OSError, ValueError, RuntimeError) as error:
        raise (connection.tokens and connection.tokens.failure) or _translated(
            error, connection, subject, operation, topics
        ) from None


def input_topics(connection: Connection, topics: tuple[str, ...]) -> tuple[InputTopic, ...]:
    """Topics as they are now; their incarnations are from their ids, where the broker gives them (KIP-516)."""
    described = require(connection, topics)
    return tuple(
        InputTopic(
            len(described[topic]["partitions"]), incarnation(topic, _bytes_of(described[topic]["topic_id"]))
        )
        for topic in topics
    )


def topic_incarnations(connection: Connection, topics: tuple[str, ...]) -> tuple[int, ...]:
    """The incarnation of each topic."""
    return tuple(topic.incarnation for topic in input_topics(connection, topics))


def describe(connection: Connection, topics: tuple[str, ...]) -> Mapping[str, Mapping[str, Any]]:
    """Metadata of the topics that exist."""
    subject = ", ".join(topics)
    with in_our_words(connection, subject):
        admin = made(KafkaAdminClient, connection)
        try:
            described = admin.describe_topics(list(topics))
        finally:
            admin.close()
    known = {}
    for topic in described:
        if topic["error_code"] == 0:
            known[topic["name"]] = topic
        elif topic["error_code"] != errors.UnknownTopicOrPartitionError.errno:
            raise _translated(errors.for_code(topic["error_code"])(), connection, topic["name"])
    return known


def require(connection: Connection, topics: tuple[str, ...]) -> Mapping[str, Mapping[str, Any]]:
    """Metadata of topics, all of which must exist.

    Raises:
        InputError: one does not.

    """
    described = describe(connection, topics)
    missing = sorted(set(topics) - set(described))
    if missing:
        raise InputError(
            f"{connection.servers}: no topic {', '.join(missing)}; `reptide topics create` creates it"
        )
    return described


def _refused(error: Exception, connection: Connection) -> ReptideError | None:
    """What keeps us out of the brokers until something is changed; None where another attempt may succeed."""
    if isinstance(error, errors.SaslAuthenticationFailedError):
        return refusals.of_login(connection)
    if isinstance(error, (errors.UnsupportedSaslMechanismError, errors.IllegalSaslStateError)):
        return refusals.of_mechanism(connection)
    if isinstance(error, errors.InvalidReceiveError) and TLS_RECORD.search(str(error)):
        return refusals.speaks_tls(connection)
    return refusals.of_tls(connection, str(error))


def _translated(
    error: Exception, connection: Connection, subject: str, operation: str = "Describe", topics: str = ""
) -> ReptideError:
    name = type(error).__name__
    if refused := _refused(error, connection):
        return refused
    if NO_PRODUCER_ID in str(error):
        return refusals.denied_on_cluster(connection, operation)
    if isinstance(error, errors.BrokerResponseError) and error.errno is not None:
        named = _named(error) or topics
        return broker_errors.of_code(error.errno, name, connection, subject, operation, named)
    if isinstance(error, AWAY):
        closed = isinstance(error, _Ended)
        return refusals.away(connection, subject, "KafkaTimeoutError" if closed else name, closed)
    if isinstance(error, errors.LogTruncationError):
        return broker_errors.cut(connection, subject)
    if isinstance(error, errors.KafkaError) and not isinstance(error, errors.KafkaConfigurationError):
        return InputError(
            f"{connection.servers}: kafka-python gives {subject} up ({name}): start this again; where that does not "
            'help, kafka.client = "confluent" is another client'
        )
    return SettingsError(
        f"kafka: a setting for {connection.servers} is not accepted ({name}): check kafka.security"
    )


def _named(error: Exception) -> str:
    """The topics that an error of authorization names."""
    if not isinstance(error, errors.TopicAuthorizationFailedError) or not error.args:
        return ""
    told = error.args[0]
    return told if isinstance(told, str) else ", ".join(sorted(told))


def _bytes_of(topic_id: str | None) -> bytes | None:
    return None if topic_id is None else UUID(topic_id).bytes

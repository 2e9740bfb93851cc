"""What all of kafka-python's clients here share: settings, and its errors in our words.

A message of kafka-python may quote a whole request; ours name its class only, so that no password is ever in one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from kafka import KafkaAdminClient, errors
from kafka.net.compat import KafkaNetClient

from streams.errors import InputError, ReptideError, SettingsError, Unavailable
from streams.logs.group import Connection, incarnation

BOOTSTRAP_MS = 10_000

ANSWER_MS = 5_000
"""How long one question to a broker may take."""

REFUSED = (
    errors.AuthorizationError, errors.SaslAuthenticationFailedError, errors.UnsupportedSaslMechanismError,
    errors.IllegalSaslStateError,
)  # fmt: skip
UNKNOWN_TOPIC = (errors.UnknownTopicOrPartitionError, errors.InvalidTopicError)
TOO_LARGE = (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError)
AWAY = (errors.RetriableError, errors.BrokerNotAvailableError, OSError)


def common(connection: Connection) -> dict[str, Any]:
    """Settings of every client."""
    return {
        "bootstrap_servers": connection.servers.split(","),
        "bootstrap_timeout_ms": BOOTSTRAP_MS,
        **connection.security,
    }


def made(kind: Callable[..., Any], connection: Connection, **settings: Any) -> Any:
    """Make a client. Where it reaches no broker, close what kafka-python 3.0 leaves open: a thread, sockets."""
    opened: list[KafkaNetClient] = []

    def network(**configs: Any) -> KafkaNetClient:
        """What kafka-python would open itself, and would not give out."""
        opened.append(KafkaNetClient(**configs))
        return opened[-1]

    try:
        return kind(kafka_client=network, **common(connection), **settings)
    except (errors.KafkaError, OSError, ValueError, RuntimeError):
        for client in opened:
            client.close()
        raise


@contextmanager
def in_our_words(servers: str, subject: str) -> Iterator[None]:
    """Raise what kafka-python raises as an error of ours; `subject` is a group or topic.

    Raises:
        Unavailable: the brokers do not answer just now.
        InputError: they refuse, and would again.
        SettingsError: kafka-python does not take a setting.

    """
    try:
        yield
    except (errors.KafkaError, OSError, ValueError, RuntimeError) as error:
        raise _translated(error, servers, subject) from None


def topic_incarnations(connection: Connection, topics: tuple[str, ...]) -> tuple[int, ...]:
    """Of each topic, from its id where the broker gives one (Kafka does since 2.8, KIP-516)."""
    described = describe(connection, topics)
    return tuple(incarnation(topic, _bytes_of(described[topic]["topic_id"])) for topic in topics)


def describe(connection: Connection, topics: tuple[str, ...]) -> Mapping[str, Mapping[str, Any]]:
    """Metadata of the topics that exist."""
    subject = ", ".join(topics)
    with in_our_words(connection.servers, subject):
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
            raise _translated(errors.for_code(topic["error_code"])(), connection.servers, subject)
    return known


def require(connection: Connection, topics: tuple[str, ...]) -> None:
    """Refuse to go on without one of the topics."""
    missing = sorted(set(topics) - set(describe(connection, topics)))
    if missing:
        raise InputError(
            f"{connection.servers}: no topic {', '.join(missing)}; `reptide topics create` creates it"
        )


def _translated(error: Exception, servers: str, subject: str) -> ReptideError:
    name = type(error).__name__
    if isinstance(error, REFUSED):
        return InputError(f"{servers} refuses {subject}: {name}. Check kafka.security and the access rules")
    if isinstance(error, UNKNOWN_TOPIC):
        return InputError(f"{servers}: no topic {subject}; `reptide topics create` creates it")
    if isinstance(error, TOO_LARGE):
        return InputError(
            f"{servers}: a message for {subject} is larger than its limit: raise max.message.bytes of the topic "
            "(`reptide topics check` compares it)"
        )
    if isinstance(error, AWAY):
        return Unavailable(f"{servers} does not answer for {subject} ({name})")
    if isinstance(error, errors.KafkaError) and not isinstance(error, errors.KafkaConfigurationError):
        return InputError(f"{servers}: {subject}: {name}")
    return SettingsError(f"kafka: a setting for {servers} is not accepted ({name}): check kafka.security")


def _bytes_of(topic_id: str | UUID | None) -> bytes | None:
    return None if topic_id is None else UUID(str(topic_id)).bytes

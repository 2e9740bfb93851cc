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
from kafka.net.sasl.oauth import AbstractTokenProvider

from streams.errors import InputError, ReptideError, SettingsError, Unavailable
from streams.logs.group import Connection, incarnation
from streams.logs.security import named
from streams.logs.tokens import Tokens

BOOTSTRAP_MS = 10_000

ANSWER_MS = 5_000
"""How long one question to a broker may take."""

RECONNECT_MS = 1_000
"""How long after a broker came back it may go unnoticed, as with Java's clients; kafka-python's default is 30 s."""

REFUSED = (
    errors.AuthorizationError, errors.SaslAuthenticationFailedError, errors.UnsupportedSaslMechanismError,
    errors.IllegalSaslStateError,
)  # fmt: skip
UNKNOWN_TOPIC = (errors.UnknownTopicOrPartitionError, errors.InvalidTopicError)
TOO_LARGE = (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError)
AWAY = (
    errors.RetriableError, errors.BrokerNotAvailableError, errors.UnknownBrokerIdError, errors.UnknownError,
    errors.StaleBrokerEpochError, errors.StaleControllerEpochError, errors.NewLeaderElectedError, OSError,
)  # fmt: skip
"""A broker that is away, comes back, or has just handed its partitions or the group to another."""
UNSEQUENCED = (
    errors.OutOfOrderSequenceNumberError, errors.DuplicateSequenceNumberError, errors.UnknownProducerIdError,
    errors.InvalidProducerIdMappingError, errors.InvalidProducerEpochError,
)  # fmt: skip
"""A broker that does not know what this producer sent before: another producer sends it again."""


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
        "bootstrap_timeout_ms": BOOTSTRAP_MS,
        "reconnect_backoff_max_ms": RECONNECT_MS,
        **security,
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
def in_our_words(connection: Connection, subject: str) -> Iterator[None]:
    """Raise what kafka-python raises as an error of ours; `subject` is a group or topic.

    Raises:
        Unavailable: the brokers do not answer just now, or whoever gives tokens does not.
        InputError: they refuse, and would again.
        SettingsError: kafka-python does not take a setting.

    """
    try:
        yield
    except (errors.KafkaError, OSError, ValueError, RuntimeError) as error:
        raise (connection.tokens and connection.tokens.failure) or _translated(
            error, connection, subject
        ) from None


def topic_incarnations(connection: Connection, topics: tuple[str, ...]) -> tuple[int, ...]:
    """Of each topic, from its id where the broker gives one (Kafka does since 2.8, KIP-516)."""
    described = describe(connection, topics)
    return tuple(incarnation(topic, _bytes_of(described[topic]["topic_id"])) for topic in topics)


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
            raise _translated(errors.for_code(topic["error_code"])(), connection, subject)
    return known


def require(connection: Connection, topics: tuple[str, ...]) -> None:
    """Refuse to go on without one of the topics."""
    missing = sorted(set(topics) - set(describe(connection, topics)))
    if missing:
        raise InputError(
            f"{connection.servers}: no topic {', '.join(missing)}; `reptide topics create` creates it"
        )


def _translated(error: Exception, connection: Connection, subject: str) -> ReptideError:
    servers, name = connection.servers, type(error).__name__
    if isinstance(error, REFUSED):
        return InputError(f"{servers} refuses {subject}: {name}. Check kafka.security and the access rules")
    if isinstance(error, UNKNOWN_TOPIC):
        return InputError(f"{servers}: no topic {subject}; `reptide topics create` creates it")
    if isinstance(error, TOO_LARGE):
        return InputError(
            f"{servers}: a message for {subject} is larger than its limit: raise max.message.bytes of the topic "
            "(`reptide topics check` compares it)"
        )
    if isinstance(error, AWAY + UNSEQUENCED):
        return Unavailable(f"{servers} does not answer for {subject} ({name}){connection.doubt}")
    if isinstance(error, errors.KafkaError) and not isinstance(error, errors.KafkaConfigurationError):
        return InputError(f"{servers}: {subject}: {name}")
    return SettingsError(f"kafka: a setting for {servers} is not accepted ({name}): check kafka.security")


def _bytes_of(topic_id: str | UUID | None) -> bytes | None:
    return None if topic_id is None else UUID(str(topic_id)).bytes

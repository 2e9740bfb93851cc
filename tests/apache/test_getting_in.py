"""TLS and logins on Apache Kafka: each way in is open to both clients, and each mistake is one sentence, at once."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial

import pytest

from streams.errors import InputError, ReptideError, Unavailable
from streams.events.envelope import Envelope
from streams.logs.kafka.group import Connection
from streams.logs.kafka.outputs import Sent
from tests.apache.secured import SECRET, Secured, token_of
from tests.kafka_brokers import NUMBERS, Broker, group_of, producer_of, topic_of

TOKEN = "sasl_oauth_token_function"  # noqa: S105 - the name of a setting
NOWHERE = "nowhere"
"""A topic that is not there: whoever may come in is told so."""

Way = tuple[str, Callable[[Secured], Mapping[str, str]]]
"""A listener, and the settings of a client."""


def own_token() -> tuple[str, float]:
    """Of a function that an operator names."""
    return token_of("ann"), time.time() + 600


def expired_token() -> tuple[str, float]:
    """A token that has expired by the broker's clock, and not by ours."""
    return token_of("ann", -60), time.time() + 600


def by_token(function: str) -> Callable[[Secured], Mapping[str, str]]:
    return lambda broker: broker.sasl("OAUTHBEARER", **{TOKEN: f"tests.apache.test_getting_in:{function}"})


def by_scram(
    broker: Secured, user: str = "ann", password: str = SECRET, strength: int = 512
) -> Mapping[str, str]:
    return broker.sasl(f"SCRAM-SHA-{strength}", sasl_plain_username=user, sasl_plain_password=password)


def with_certificate(broker: Secured, whose: str) -> Mapping[str, str]:
    shown = getattr(broker, whose)
    return broker.tls(ssl_certfile=str(shown.certificate), ssl_keyfile=str(shown.key))


WAYS_IN: Mapping[str, Way] = {
    "TLS of a private authority": ("TLS", Secured.tls),
    "TLS of another host, unchecked": ("ELSEWHERE", lambda broker: broker.tls(ssl_check_hostname="false")),
    "mutual TLS": ("MUTUAL", lambda broker: with_certificate(broker, "client")),
    "PLAIN": ("LOGIN", Secured.plain),
    "SCRAM": ("LOGIN", by_scram),
    "OAUTHBEARER": ("LOGIN", by_token("own_token")),
}

NOT_TRUSTED = "the certificate of {at} is not trusted ("
REFUSED: Mapping[str, tuple[Way, type[ReptideError], str]] = {
    "another authority": (
        ("TLS", lambda broker: broker.tls(ssl_cafile=str(broker.other.certificate))), InputError,
        NOT_TRUSTED + "unable to get local issuer certificate); name the authority that signed it by "
        "kafka.security.ssl_cafile",
    ),
    "another host": (
        ("ELSEWHERE", Secured.tls), InputError,
        NOT_TRUSTED + "IP address mismatch, certificate is not valid for '127.0.0.1'); name the brokers in "
        "kafka.bootstrap and in their advertised.listeners as their certificates do",
    ),
    "no certificate": (
        ("MUTUAL", Secured.tls), InputError,
        "{at} takes no client without a certificate that it trusts; give one by kafka.security.ssl_certfile",
    ),
    "a stranger's certificate": (
        ("MUTUAL", lambda broker: with_certificate(broker, "stranger")), InputError,
        "{at} takes no client without a certificate that it trusts; give one by kafka.security.ssl_certfile",
    ),
    "a plaintext client": (
        ("TLS", lambda _: {}), InputError,
        "{at} speaks TLS, and kafka.security.security_protocol is PLAINTEXT; set it to SSL, or to SASL_SSL",
    ),
    "TLS without TLS": (
        ("PLAINTEXT", Secured.tls), Unavailable,
        "{at} does not answer for nowhere (KafkaTimeoutError); it ends our connections: see that SSL, our "
        "kafka.security.security_protocol, is what this listener speaks",
    ),
    "no login": (
        ("LOGIN", Secured.tls), Unavailable,
        "{at} does not answer for nowhere (KafkaTimeoutError); it ends our connections: see that SSL, our ",
    ),
    "a login where there is none": (
        ("TLS", Secured.plain), InputError, "{at} takes no login by PLAIN at this listener; set kafka.security.",
    ),
    "a mechanism that is not offered": (
        ("LOGIN", lambda broker: by_scram(broker, strength=256)), InputError,
        "{at} takes no login by SCRAM-SHA-256 at this listener; set kafka.security.sasl_mechanism to one that it has",
    ),
    "a wrong password, PLAIN": (
        ("LOGIN", lambda broker: broker.plain(password=SECRET + "x")), InputError,
        "{at} does not take the password of user ann by PLAIN; check sasl_plain_username and sasl_plain_password",
    ),
    "an unknown user, PLAIN": (
        ("LOGIN", lambda broker: broker.plain("zed")), InputError,
        "{at} does not take the password of user zed by PLAIN; check",
    ),
    "a wrong password, SCRAM": (
        ("LOGIN", lambda broker: by_scram(broker, password=SECRET + "x")), InputError,
        "{at} does not take the password of user ann by SCRAM-SHA-512; check",
    ),
    "an unknown user, SCRAM": (
        ("LOGIN", lambda broker: by_scram(broker, "zed")), InputError,
        "{at} does not take the password of user zed by SCRAM-SHA-512; check",
    ),
    "an expired token": (
        ("LOGIN", by_token("expired_token")), Unavailable,
        "{at} does not take our token; see that it has not expired (the clocks of both), and that its issuer,",
    ),
}  # fmt: skip


@pytest.fixture(params=["kafka-python", "confluent"])
def library(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.mark.parametrize("way", WAYS_IN)
def test_each_way_in_is_open_for_writing_and_for_reading(way: str, library: str, broker: Secured) -> None:
    listener, security = WAYS_IN[way]
    topic = topic_of(Broker(broker.kafka.address, None), 1)
    group = f"group-{next(NUMBERS)}"
    broker.allow("User:ann" if listener == "LOGIN" else "User:CN=client", topic, group)
    connection = Connection(broker.kafka.address_of(listener), security(broker))
    producer = producer_of(library)(connection, [topic])
    producer.send(topic, [Sent(b"ann", b'{"task": "ann"}')])
    producer.flush()
    producer.close()
    member = group_of(library)(connection, group, [topic], Envelope())
    read: list[bytes | None] = []
    deadline = time.monotonic() + 30
    while not read and time.monotonic() < deadline:
        read = [record.raw for records in member.fetch(10, 0.2).records.values() for record in records]
    member.close()
    assert read == [b'{"task": "ann"}']


@pytest.mark.parametrize("mistake", REFUSED)
def test_each_mistake_is_one_sentence_without_a_secret(
    mistake: str,
    library: str,
    broker: Secured,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    (listener, security), kind, sentence = REFUSED[mistake]
    if "ends our connections" in sentence:  # all others are told at once
        monkeypatch.setattr("streams.logs.kafka.kafka_python.client.BOOTSTRAP_MS", 1500)
        monkeypatch.setattr("streams.logs.kafka.confluent.client.ANSWER_S", 1.5)
    connection = Connection(broker.kafka.address_of(listener), security(broker))
    for connect in (
        partial(producer_of(library), connection, [NOWHERE]),
        partial(group_of(library), connection, "group", [NOWHERE], Envelope()),
    ):
        with pytest.raises(kind) as caught:
            connect()
        assert str(caught.value).startswith(sentence.format(at=connection.servers))
        told = "".join(traceback.format_exception(caught.value)) + caplog.text
        assert SECRET not in told
        assert token_of("ann").split(".")[0] not in told


def test_with_a_setting_that_kafka_python_has_not_confluent_says_what_it_can(broker: Secured) -> None:
    security = {**broker.plain(password=SECRET + "x"), "ssl_ciphers": "ALL"}
    with pytest.raises(InputError, match="does not take the password of user ann by PLAIN"):
        producer_of("confluent")(Connection(broker.kafka.address_of("LOGIN"), security), [NOWHERE])

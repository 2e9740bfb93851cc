"""One broker of Apache Kafka with a listener for each way in, and who may come in by it."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from streams.testing.apache_kafka import AUTHORIZER, ApacheKafka
from tests.kafka_brokers import apache_kafka
from tests.redis_servers import poll
from tests.tls import Authority, Certificate

SECRET = "hunter2-sesame"  # noqa: S105
ROLES = ("worker", "trainer", "producer", "reader", "operator")
USERS = ("ann", *(f"reptide-{role}" for role in ROLES))
"""Known by PLAIN; ann by SCRAM too."""
JAAS = "org.apache.kafka.common.security"


EVERY = AclBindingFilter(
    ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
)


class Rule(NamedTuple):
    """One ACL."""

    principal: str
    operation: str
    kind: str
    """TOPIC, GROUP or CLUSTER."""
    name: str
    pattern: str = "LITERAL"
    permission: str = "ALLOW"

    @property
    def binding(self) -> AclBinding:
        """As a broker is told."""
        return AclBinding(
            ResourceType[self.kind], self.name, ResourcePatternType[self.pattern], self.principal, "*",
            AclOperation[self.operation], AclPermissionType[self.permission],
        )  # fmt: skip


class Secured(NamedTuple):
    """The broker, and the files of TLS."""

    kafka: ApacheKafka
    ours: Authority
    other: Authority
    client: Certificate
    stranger: Certificate

    def tls(self, **more: str) -> dict[str, str]:
        """Settings of a client that trusts the broker's authority."""
        return {"security_protocol": "SSL", "ssl_cafile": str(self.ours.certificate), **more}

    def sasl(self, mechanism: str, **more: str) -> dict[str, str]:
        """Settings of a client that logs in."""
        return self.tls() | {"security_protocol": "SASL_SSL", "sasl_mechanism": mechanism, **more}

    def plain(self, user: str = "ann", password: str = SECRET) -> dict[str, str]:
        """Settings of a client that logs in by name and password."""
        return self.sasl("PLAIN", sasl_plain_username=user, sasl_plain_password=password)

    def allow(self, principal: str, topic: str, group: str) -> None:
        """Let somebody read and write."""
        self.set_rules([
            Rule(principal, "READ", "TOPIC", topic), Rule(principal, "WRITE", "TOPIC", topic),
            Rule(principal, "READ", "GROUP", group),
        ])  # fmt: skip

    def set_rules(self, rules: Sequence[Rule]) -> None:
        """Add rules, and wait until the broker goes by them."""
        admin = AdminClient({"bootstrap.servers": self.kafka.address})
        for added in admin.create_acls([rule.binding for rule in rules]).values():
            added.result()
        self._wait(admin, lambda known: known.issuperset(rule.binding for rule in rules))

    def drop_rules(self) -> None:
        """Forget every rule."""
        admin = AdminClient({"bootstrap.servers": self.kafka.address})
        for dropped in admin.delete_acls([EVERY]).values():
            dropped.result()
        self._wait(admin, lambda known: not known)

    def _wait(self, admin: AdminClient, condition: Callable[[set[AclBinding]], bool]) -> None:
        poll(lambda: condition(set(admin.describe_acls(EVERY).result())), "the broker's rules")


@contextmanager
def secured(directory: Path) -> Iterator[Secured]:
    """Start the broker."""
    directory.mkdir(exist_ok=True)
    ours, other = (Authority(directory / name) for name in ("ours", "other"))
    shown, elsewhere = ours.signed("broker", "IP:127.0.0.1"), ours.signed("elsewhere", "DNS:elsewhere")
    properties = {
        **AUTHORIZER,
        **_shows("tls", shown), **_shows("elsewhere", elsewhere), **_shows("mutual", shown), **_shows("login", shown),
        "listener.name.mutual.ssl.client.auth": "required",
        "listener.name.mutual.ssl.truststore.type": "PEM",
        "listener.name.mutual.ssl.truststore.location": str(ours.certificate),
        "listener.name.login.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512,OAUTHBEARER",
        "listener.name.login.plain.sasl.jaas.config": _jaas(
            "plain.PlainLoginModule", {f"user_{user}": SECRET for user in USERS}
        ),
        "listener.name.login.scram-sha-512.sasl.jaas.config": _jaas("scram.ScramLoginModule", {}),
        "listener.name.login.oauthbearer.sasl.jaas.config": _jaas(
            "oauthbearer.OAuthBearerLoginModule", {"unsecuredLoginStringClaim_sub": "broker"}
        ),
    }  # fmt: skip
    listeners = {"TLS": "SSL", "ELSEWHERE": "SSL", "MUTUAL": "SSL", "LOGIN": "SASL_SSL"}
    scram = ["--add-scram", f"SCRAM-SHA-512=[name=ann,password={SECRET}]"]
    client, stranger = ours.signed("client"), other.signed("stranger")
    with apache_kafka(directory / "kafka", properties=properties, listeners=listeners, format=scram) as kafka:
        yield Secured(kafka, ours, other, client, stranger)


def token_of(user: str, lives_s: float = 600.0) -> str:
    """An unsecured token (RFC 7519, section 6), which a broker of tests takes; with `lives_s` < 0 it has expired."""
    now = time.time()
    parts = {"alg": "none"}, {"sub": user, "iat": min(now, now + lives_s) - 1, "exp": now + lives_s}
    return ".".join(urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + "."


def _shows(listener: str, shown: Certificate) -> dict[str, str]:
    """The certificate of a listener, as Kafka reads one: with its key, in one file."""
    both = shown.key.with_suffix(".both.pem")
    both.write_text(shown.key.read_text() + shown.certificate.read_text())
    name = f"listener.name.{listener}.ssl.keystore"
    return {f"{name}.type": "PEM", f"{name}.location": str(both)}


def _jaas(module: str, options: Mapping[str, str]) -> str:
    return (
        " ".join([f"{JAAS}.{module} required", *(f'{name}="{value}"' for name, value in options.items())])
        + ";"
    )

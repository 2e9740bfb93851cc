"""TLS and SASL of `[kafka.security]`: which settings there are, and what is wrong with those given, in a sentence.

Client libraries take a setting that has no effect without a word: credentials without a SASL protocol, say, are
left out, and a certificate without TLS. So what is given has to fit together. No message quotes a value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from streams.errors import SettingsError
from streams.system.tls import TlsFiles, mistakes

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "GSSAPI", "AWS_MSK_IAM")
YES_OR_NO = ("true", "false")


class Name(NamedTuple):
    """A setting, and what the client libraries call it; None where one has no such thing."""

    kafka_python: str | None
    confluent: str | None


def _both(name: str, confluent: str | None) -> tuple[str, Name]:
    return name, Name(name, confluent)


PASSED = dict((
    _both("security_protocol", "security.protocol"),
    _both("ssl_cafile", "ssl.ca.location"),
    _both("ssl_certfile", "ssl.certificate.location"),
    _both("ssl_keyfile", "ssl.key.location"),
    _both("ssl_password", "ssl.key.password"),
    _both("ssl_crlfile", "ssl.crl.location"),
    ("ssl_ciphers", Name(None, "ssl.cipher.suites")),
    _both("ssl_check_hostname", "ssl.endpoint.identification.algorithm"),
    _both("sasl_mechanism", "sasl.mechanism"),
    _both("sasl_plain_username", "sasl.username"),
    _both("sasl_plain_password", "sasl.password"),
    _both("sasl_kerberos_name", None),
    _both("sasl_kerberos_service_name", "sasl.kerberos.service.name"),
    _both("sasl_kerberos_domain_name", None),
))  # fmt: skip
"""Settings that are handed to a client library."""

ENDPOINT = ("sasl_oauth_token_endpoint", "sasl_oauth_client_id", "sasl_oauth_client_secret")
FUNCTION = "sasl_oauth_token_function"
OAUTH = frozenset({*ENDPOINT, "sasl_oauth_scope", "sasl_oauth_extensions", FUNCTION})
"""Settings of which tokens are made; see `streams.logs.kafka.tokens`."""

KNOWN = OAUTH | PASSED.keys()
TLS_FILES = TlsFiles("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_password")


def check(security: Mapping[str, str]) -> None:
    """Refuse what a client library would refuse without saying why, or silently leave out.

    Raises:
        SettingsError: names the first setting that is wrong, and what to set.

    """
    for mistake in _mistakes(security):
        raise SettingsError(f"kafka.security.{mistake}")


def named(security: Mapping[str, str], client: int) -> dict[str, str]:
    """Settings as a client library calls them: 0 kafka-python, 1 confluent-kafka.

    Raises:
        SettingsError: it has no such setting.

    """
    passed = {name: PASSED[name][client] for name in security if name in PASSED}
    unknown = sorted(name for name, own in passed.items() if own is None)
    if unknown:
        this, other = (("kafka-python", "confluent"), ("confluent", "kafka-python"))[client]
        raise SettingsError(
            f'kafka.security.{unknown[0]}: kafka.client = "{this}" has no such setting, "{other}" has'
        )
    return {own: security[name] for name, own in passed.items() if own is not None}


def _mistakes(security: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(security.keys() - KNOWN):
        yield f"{name}: there is no such setting; there are {', '.join(sorted(KNOWN))}"
    yield from _wrong_values(security)
    protocol = security.get("security_protocol", "PLAINTEXT")
    if not protocol.startswith("SASL") and (names := _of(security, "sasl_")):
        yield f"{names[0]}: it has no effect unless security_protocol is SASL_SSL (or SASL_PLAINTEXT)"
    if not protocol.endswith("SSL") and (names := _of(security, "ssl_")):
        yield f"{names[0]}: it has no effect unless security_protocol is SASL_SSL (or SSL)"
    if protocol.startswith("SASL"):
        yield from _wrong_login(security)


def _wrong_values(security: Mapping[str, str]) -> Iterator[str]:
    taken = {
        "security_protocol": PROTOCOLS, "sasl_mechanism": MECHANISMS, "ssl_check_hostname": YES_OR_NO,
    }  # fmt: skip
    for name, values in taken.items():
        if security.get(name, values[0]) not in values:
            yield f"{name}: must be one of {', '.join(values)}"
    if "ssl_crlfile" in security and not Path(security["ssl_crlfile"]).is_file():
        yield "ssl_crlfile: there is no such file"
    yield from mistakes(TLS_FILES, TlsFiles(*(security.get(str(name)) for name in TLS_FILES)))


def _wrong_login(security: Mapping[str, str]) -> Iterator[str]:
    """What the mechanism needs, and what is there for another."""
    mechanism = security.get("sasl_mechanism")
    needed: dict[str | None, tuple[str, ...]] = {
        "OAUTHBEARER": (FUNCTION,) if FUNCTION in security else ENDPOINT,
        **dict.fromkeys(MECHANISMS[:3], ("sasl_plain_username", "sasl_plain_password")),
        None: ("sasl_mechanism",),
    }
    if missing := [name for name in needed.get(mechanism, ()) if name not in security]:
        yield f"{missing[0]}: it is missing; {mechanism or 'SASL'} needs {' and '.join(needed[mechanism])}"
    if mechanism == "OAUTHBEARER" and FUNCTION in security and (both := _of(security, "sasl_oauth_client")):
        yield f"{both[0]}: give either this or {FUNCTION}, which makes tokens in its own way"
    if mechanism != "OAUTHBEARER" and (names := _of(security, "sasl_oauth_")):
        yield f"{names[0]}: it has no effect unless sasl_mechanism is OAUTHBEARER"


def _of(security: Mapping[str, str], beginning: str) -> list[str]:
    return sorted(name for name in security if name.startswith(beginning))

"""What brokers do not let us do, in a sentence with the way out: a login, a certificate, an operation on a resource.

Both client libraries come here. No sentence holds a secret, or what a broker says of one.
"""

from __future__ import annotations

from streams.errors import InputError, ReptideError, Unavailable
from streams.logs.kafka.group import Connection
from streams.system.tls import untrusted

TRUSTED_BY = {
    "mismatch": "name the brokers in kafka.bootstrap and in their advertised.listeners as their certificates do, or, "
    "behind a tunnel, set kafka.security.ssl_check_hostname = false",
    "expired": "renew it",
    "": "name the authority that signed it by kafka.security.ssl_cafile",
}
"""What mends a certificate that is not trusted, by a word of the reason."""
OF_OURS = (
    "ALERT_BAD_CERTIFICATE",
    "ALERT_CERTIFICATE_UNKNOWN",
    "ALERT_UNKNOWN_CA",
    "ALERT_CERTIFICATE_REQUIRED",
)
"""What a broker says of our certificate, or of there being none."""
SEE = "docs/operations.md has what each role needs"


def of_tls(connection: Connection, said: str) -> ReptideError | None:
    """A handshake that failed for good; None for any other error."""
    if why := untrusted(said, TRUSTED_BY):
        return InputError(f"the certificate of {connection.servers} {why}")
    if any(alert in said for alert in OF_OURS):
        return InputError(
            f"{connection.servers} takes no client without a certificate that it trusts; give one by "
            "kafka.security.ssl_certfile and ssl_keyfile"
        )
    return None


def speaks_tls(connection: Connection) -> ReptideError:
    """What was heard is no answer of Kafka's, but TLS."""
    return InputError(
        f"{connection.servers} speaks TLS, and kafka.security.security_protocol is {connection.protocol}; set it to "
        "SSL, or to SASL_SSL with a login"
    )


def of_login(connection: Connection) -> ReptideError:
    """A login that is not taken; a token may be taken later, when another was asked for."""
    mechanism = connection.security.get("sasl_mechanism")
    if connection.tokens is not None:
        return Unavailable(
            f"{connection.servers} does not take our token; see that it has not expired (the clocks of both), and "
            "that its issuer, audience and scope are those that the brokers expect"
        )
    return InputError(
        f"{connection.servers} does not take the password of {connection.principal} by {mechanism}; check "
        "sasl_plain_username and sasl_plain_password in kafka.security, and that the brokers know this user"
    )


def of_mechanism(connection: Connection) -> ReptideError:
    """No logins are taken, or none of our kind."""
    return InputError(
        f"{connection.servers} takes no login by {connection.security.get('sasl_mechanism')} at this listener; set "
        "kafka.security.sasl_mechanism to one that it has (sasl.enabled.mechanisms), or another security_protocol"
    )


def away(connection: Connection, subject: str, name: str, closed: bool) -> Unavailable:
    """No broker answers; `closed`: one took the connection and ended it."""
    doubt = (
        f"; it ends our connections: see that {connection.protocol}, our kafka.security.security_protocol, is what "
        "this listener speaks"
    )
    return Unavailable(f"{connection.servers} does not answer for {subject} ({name}){doubt * closed}")


def denied(connection: Connection, operation: str, resource: str) -> InputError:
    """An ACL forbids an operation (as `kafka-acls` names it) on a resource, such as "topic shop.scores"."""
    return InputError(
        f"{connection.servers} does not let {connection.principal} {operation} {resource}; allow it by an ACL "
        f"(`kafka-acls --add --operation {operation}`; {SEE})"
    )


def denied_on_cluster(connection: Connection, operation: str) -> InputError:
    """Refused by the cluster itself: a producer that may write to no topic gets no id."""
    return denied(connection, operation, "any topic" if operation == "Write" else "the cluster")

"""What a Redis does not let us do, in a sentence with the way out: a login, a command, a key, a certificate.

No sentence holds a password, or the name of a task. What each role may be restricted to is in docs/operations.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from streams.errors import SettingsError
from streams.system.tls import TlsFiles, mistakes, untrusted

TLS_OPTIONS = TlsFiles("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_password")
TRUSTED_BY = {
    "mismatch": "name the host in redis.url as its certificate does, or, behind a tunnel, add "
    "ssl_check_hostname=false there",
    "expired": "renew it",
    "": "name the authority that signed it in redis.url: rediss://...?ssl_ca_certs=FILE",
}
"""What mends it, by a word of what is wrong."""
ENDED = re.compile(r"EOF occurred|[Rr]eset by peer|Broken pipe|closed by server|ALERT")
OF_KEY = re.compile("access (one of the keys|a key)")
NAMED = re.compile(r"run the '([\w|]+)'")
IN_SCRIPT = re.compile(r"redis\.call\('(\w+)'")
TLS_ALONE = "where it speaks TLS alone, write rediss:// in redis.url"
NO_TLS = "where it speaks no TLS, write redis:// in redis.url"
TLS_OF_OURS = (
    "where it asks for a certificate of ours, give one that it trusts by ssl_certfile and ssl_keyfile"
)
SEE = " (docs/operations.md has what each role needs)"


class Access(NamedTuple):
    """As whom a server is asked, and over what."""

    address: str
    user: str
    tls: bool

    @property
    def login_refused(self) -> str:
        """The server does not know us."""
        return (
            f"Redis at {self.address} does not take the password of user {self.user}; check user and password in "
            "redis.url, and that the server has this user (`ACL LIST`)"
        )

    def denied(self, said: str, command: Sequence[Any]) -> str:
        """An ACL forbids a command, or a key; `command` is what was asked, where that is known."""
        who, way = f"Redis at {self.address} does not let user {self.user}", f"`ACL SETUSER {self.user}"
        if OF_KEY.search(said):
            keys = _family(command) if command else "reptide:STREAM:*"
            return f"{who} use the keys {keys}; allow them by {way} ~{keys}`{SEE}"
        names = _forbidden(said, command)
        allowed = " ".join(f"+{name}" for name in names)
        if len(names) > 1:
            return f"{who} run a command of a script: {', '.join(names).upper()}; allow them by {way} {allowed}`{SEE}"
        return (
            f"{who} run {names[0].upper()}; allow it by {way} {allowed}`{SEE}" if names else f"{who} in{SEE}"
        )

    def untrusted(self, said: str) -> str | None:
        """The server's certificate is not trusted; None where that is not what was said."""
        why = untrusted(said, TRUSTED_BY)
        return why and f"the certificate of Redis at {self.address} {why}"

    def doubt(self, said: str) -> str:
        """What else may be wrong where a server does not answer; begins with a semicolon, or is empty."""
        if ENDED.search(said):
            return "; " + (TLS_OF_OURS if self.tls else TLS_ALONE)
        return f"; {NO_TLS}" if self.tls and "imeout" in said else ""


def check_tls(options: Mapping[str, Any]) -> None:
    """Refuse files of the URL that the client would refuse without naming them.

    Raises:
        SettingsError: names the first option that is wrong.
    """
    given = TlsFiles(*(options.get(str(name)) for name in TLS_OPTIONS))
    for mistake in mistakes(TLS_OPTIONS, given):
        raise SettingsError(f"redis.url: {mistake}")


def _forbidden(said: str, command: Sequence[Any]) -> list[str]:
    """The command that is not allowed; of a script, which does not say, all that it runs."""
    if named := NAMED.search(said):
        return [named[1]]
    if command and command[0] == "EVAL":
        return sorted({name.lower() for name in IN_SCRIPT.findall(str(command[1]))})
    return [str(command[0]).lower()] if command else []


def _family(command: Sequence[Any]) -> str:
    """The keys of the stream of a command's key, which may name a task."""
    key = str(command[3 if command[0] == "EVAL" else 1])
    return ":".join(key.split(":")[:2]) + ":*"

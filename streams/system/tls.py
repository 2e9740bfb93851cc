"""TLS in words: a certificate that is not trusted, and files that cannot be used, whichever server they are for.

Files are read before a client library reads them, which names none, and may ask a terminal for a password.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

ENCRYPTED = b"ENCRYPTED"
"""In the first lines of a private key that has a password."""

UNTRUSTED = re.compile(r"certificate verify failed: (.*?)\.? \(_ssl")


def untrusted(said: str, ways: Mapping[str, str]) -> str | None:
    """Why a server's certificate is not trusted, and what mends that; None where that is not what was said.

    Args:
        said: an error of Python's TLS.
        ways: what mends it, by a word of the reason, the empty one last.
    """
    if (why := UNTRUSTED.search(said)) is None:
        return None
    return f"is not trusted ({why[1]}); {next(way for word, way in ways.items() if word in why[1])}"


class TlsFiles(NamedTuple):
    """Paths as the settings have them, and the name of each setting; None where it is not given."""

    authorities: str | None
    certificate: str | None
    key: str | None
    password: str | None


def mistakes(names: TlsFiles, given: TlsFiles) -> Iterator[str]:
    """What is wrong with them, a sentence that begins with the setting's name and quotes no value."""
    missing = [
        f"{name}: there is no such file"
        for name, path in zip(names[:3], given[:3], strict=True)
        if path is not None and not Path(path).is_file()
    ]
    yield from missing
    if not missing:
        yield from _unreadable(names, given)


def _unreadable(names: TlsFiles, given: TlsFiles) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if given.authorities is not None:
        try:
            context.load_verify_locations(given.authorities)
        except OSError:
            yield f"{names.authorities}: it holds no certificate in PEM that can be read"
    if given.certificate is None and (alone := _first(names, given, "key", "password")):
        yield f"{alone}: it has no effect without {names.certificate}"
    elif given.certificate is not None:
        try:
            context.load_cert_chain(given.certificate, given.key, lambda: given.password or "")
        except (OSError, ValueError) as error:
            yield _of_pair(names, given, str(error))


def _of_pair(names: TlsFiles, given: TlsFiles, said: str) -> str:
    """Why certificate and key cannot be used."""
    if "KEY_VALUES_MISMATCH" in said:
        return f"{names.key or names.certificate}: it holds another key than that of {names.certificate}"
    sealed = False
    with suppress(OSError):
        sealed = ENCRYPTED in Path(given.key or given.certificate or "").read_bytes()
    if sealed and given.password is None:
        return f"{names.password}: it is missing; the key in {names.key} is encrypted"
    if sealed:
        return f"{names.password}: it does not open the key in {names.key}"
    return f"{names.certificate}: it and {names.key} hold no certificate and key in PEM that can be read"


def _first(names: TlsFiles, given: TlsFiles, *fields: str) -> str | None:
    return next((getattr(names, field) for field in fields if getattr(given, field) is not None), None)

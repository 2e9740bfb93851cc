"""Settings that come from elsewhere than the file: environment variables and flags."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Any, NamedTuple

from streams.errors import SettingsError

PREFIX = "REPTIDE_"
OTHER_VARIABLES = {"REPTIDE_DATA", "REPTIDE_TEST_KAFKA"}
"""Variables with the prefix that are no settings."""

OF_A_SERVICE = re.compile(
    r"(REPTIDE(?:_[A-Z0-9]+)*?)_(?:SERVICE_(HOST|PORT(?:_[A-Z0-9]+)*)|PORT(_[0-9]+_(?:TCP|UDP|SCTP).*)?)"
)
"""How Kubernetes names what it tells every pod of a Service; no name of a setting within a section is like it."""


class Override(NamedTuple):
    """A value that goes before the file's."""

    keys: tuple[str, ...]
    value: Any
    text: str
    """As it stands there."""
    source: str
    """The name of the variable, or the flag up to its equals sign."""


def from_environment(environment: Mapping[str, str]) -> Iterator[Override]:
    """What variables set; those that Kubernetes makes for a Service of our name are none of ours."""
    for name, text in sorted(environment.items()):
        if (
            name.startswith(PREFIX)
            and name not in OTHER_VARIABLES
            and not _is_of_a_service(name, environment)
        ):
            keys = tuple(name.removeprefix(PREFIX).lower().split("__"))
            yield Override(keys, _value(keys, text), text, name)


def from_flags(flags: Sequence[str]) -> Iterator[Override]:
    """What `section.key=value` flags set."""
    for flag in flags:
        keys, equals, text = flag.partition("=")
        if not equals:
            raise SettingsError(f"--set {flag}: write it as section.key=value")
        path = tuple(keys.strip().split("."))
        yield Override(path, _value(path, text), text, f"--set {keys.strip()}")


def _is_of_a_service(name: str, environment: Mapping[str, str]) -> bool:
    """Whether Kubernetes made a variable, by its name and by what it holds.

    A host or a port that somebody misspelled, with one underscore for two, is not taken for one.
    """
    named = OF_A_SERVICE.fullmatch(name)
    if named is None:
        return False
    service, of_service, of_port = named.groups()
    if of_port is not None:
        return True
    if of_service is None:
        return environment[name].startswith(("tcp://", "udp://", "sctp://"))
    return _is_cluster_address(environment.get(f"{service}_SERVICE_HOST", ""))


def _is_cluster_address(text: str) -> bool:
    try:
        address = ip_address(text)
    except ValueError:
        return False
    return not address.is_unspecified and not address.is_loopback


def _value(keys: Sequence[str], text: str) -> Any:
    """JSON where it is JSON, else the text itself; a secret, whatever it looks like, is the text."""
    if tuple(keys[:-1]) == ("kafka", "security"):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text

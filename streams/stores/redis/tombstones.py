"""Tombstones in Redis: of whom nothing is to be kept, as a keyed hash each, in one hash of the stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from secrets import token_bytes
from typing import NamedTuple

from streams.errors import StoreError
from streams.stores.base import SECRET_BYTES, digest_of, digest_of_row, key_of
from streams.stores.redis.server import RedisServer

SECRET, EDITION = b"secret", b"edition"


class Tombstones(NamedTuple):
    """What a client keeps of the tombstones, until their edition is another."""

    edition: bytes | None
    """Drawn anew with each change: a count could come to the same value twice, where Redis forgets a second."""
    secret: bytes
    until_s: Mapping[bytes, float]
    """By digest."""


class RedisTombstones:
    """The tombstones of a stream, in the hash `key`; `clock` gives seconds since the epoch."""

    def __init__(self, server: RedisServer, key: str, clock: Callable[[], float]) -> None:
        self.server, self.key, self._clock = server, key, clock
        self.asks_edition = ("HGET", key, EDITION)
        """The command whose reply `among` takes."""
        self._known = Tombstones(None, b"", {})

    def live(self) -> Tombstones:
        """The live tombstones."""
        known, now = self._read(), self._clock()
        return known._replace(until_s={name: end for name, end in known.until_s.items() if end > now})

    def check_secret(self, others: Tombstones) -> None:
        """Refuse tombstones that cannot be told apart from those there are.

        Raises:
            StoreError: they are of another secret.
        """
        if others.until_s and self._read().secret not in (b"", others.secret):
            raise StoreError(
                f"Redis at {self.server.address} holds tombstones of its own, {self.key}, under another "
                "secret than the snapshot's; delete this key, restore, and forget those tasks again"
            )

    def bury(self, others: Tombstones) -> None:
        """Take over tombstones of the same secret, beside those there are."""
        if not others.until_s:
            return
        known = self._read().until_s
        later = {digest: max(end, known.get(digest, 0.0)) for digest, end in others.until_s.items()}
        self.server.ask(
            ("HSET", self.key, SECRET, others.secret),
            *(("HSET", self.key, digest, repr(end)) for digest, end in later.items()),
            ("HSET", self.key, EDITION, token_bytes(8)),
        )

    def write(self, tasks: Set[str], ttl_s: float) -> None:
        """Write tombstones, and remove those that have expired."""
        self.server.ask(("HSETNX", self.key, SECRET, token_bytes(SECRET_BYTES)))
        known, now = self._read(), self._clock()
        digests = {
            digest
            for task in tasks
            for digest in (digest_of(known.secret, task), digest_of_row(known.secret, key_of(task)))
        }
        self.server.ask(
            *(("HDEL", self.key, digest) for digest, end in known.until_s.items() if end <= now),
            *(("HSET", self.key, digest, repr(now + ttl_s)) for digest in digests),
            ("HSET", self.key, EDITION, token_bytes(8)),
        )

    def among(self, tasks: Sequence[str], edition: bytes | None) -> set[str]:
        """Those of tasks that have a live tombstone in this edition of them."""
        if edition != self._known.edition:
            self._known = self._read()
        until, now = self._known.until_s, self._clock()
        if all(end <= now for end in until.values()):
            return set()
        return {task for task in tasks if until.get(digest_of(self._known.secret, task), 0.0) > now}

    def _read(self) -> Tombstones:
        (fields,) = self.server.ask(("HGETALL", self.key))
        edition, secret = fields.pop(EDITION, None), fields.pop(SECRET, b"")
        return Tombstones(edition, secret, {digest: float(end) for digest, end in fields.items()})

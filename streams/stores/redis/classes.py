"""Names of classes in Redis: a hash, name by place, beside the versions of theta of one fingerprint."""

from __future__ import annotations

from collections.abc import Sequence

from streams.stores.base import key_of
from streams.stores.redis.server import RedisServer


class RedisClasses:
    """A `ClassNames` in Redis."""

    def __init__(self, server: RedisServer, stream: str, theta_fingerprint: str) -> None:
        self.server, self._key = server, f"reptide:{key_of(stream)}:{theta_fingerprint}:classes"

    def record(self, names: Sequence[str]) -> list[str]:
        """Write names at the places that have none yet; returns what is recorded."""
        (recorded,) = self.server.ask(("HGETALL", self._key))
        if len(recorded) < len(names):  # who only reads needs no leave to write
            writes = (("HSETNX", self._key, place, name) for place, name in enumerate(names))
            *_, recorded = self.server.ask(*writes, ("HGETALL", self._key))
            self.server.confirm()
        return [recorded[b"%d" % place].decode() for place in range(len(recorded))]

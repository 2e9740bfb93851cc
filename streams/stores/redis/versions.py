"""Versions of theta in Redis, each written once, and a pointer to the newest.

    reptide:STREAM:THETA:theta:v:N        one version: its seal, description and tensors
    reptide:STREAM:THETA:theta:current    N
    reptide:STREAM:THETA:theta:sizes      a hash: bytes by version, as far as they were looked at

Redis may forget its last second (`appendfsync everysec`). Were a version seen and then forgotten, another
could take its number, and rows would mix the two. So a version is written first, seen to be still there
a durability lag later, and pointed at only then; and whoever finds a version written completes it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import suppress
from itertools import islice

from streams.errors import CheckpointError, Unavailable
from streams.stores.base import key_of
from streams.stores.redis.server import RedisServer
from streams.stores.sealed import apart, joined, sealed, unsealed
from streams.stores.versions import Checkpoint

MOVE = """
local at = redis.call('GET', KEYS[1]) or '0'
if at == ARGV[1] then
    redis.call('SET', KEYS[1], ARGV[2])
    at = ARGV[2]
end
return at
"""
"""Compare-and-set of the pointer: (from, to) -> where it points now."""
ADVANCE = """
if tonumber(redis.call('GET', KEYS[1]) or '0') < tonumber(ARGV[1]) then
    redis.call('SET', KEYS[1], ARGV[1])
end
"""
"""Of the pointer: never back, since a version that was seen keeps its number."""
AT_ONCE = 1000
SEAL_CHARACTERS = 32


class RedisMeta:
    """A `MetaStore` in Redis, for the problems of one theta fingerprint."""

    def __init__(
        self,
        server: RedisServer,
        stream: str,
        theta_fingerprint: str,
        durability_lag_s: float = 2.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.server, self.durability_lag_s, self._sleep = server, durability_lag_s, sleep
        self._prefix = f"reptide:{key_of(stream)}:{theta_fingerprint}:theta:"
        self._pointer, self._sizes = f"{self._prefix}current", f"{self._prefix}sizes"

    def current(self) -> int:
        """The newest version; 0 while there is none."""
        (version,) = self.server.ask(("GET", self._pointer))
        return int(version or 0)

    def load(self, version: int) -> Checkpoint:
        """One version, its seal checked."""
        return self._read(version)[1]

    def content(self, version: int) -> bytes:
        """One version as it is stored, its seal checked."""
        return self._read(version)[0]

    def missing(self, versions: Iterable[int]) -> set[int]:
        """Those of versions that are not kept."""
        asked = sorted(set(versions) - {0})
        there = self.server.ask(*(("EXISTS", self._version(version)) for version in asked))
        return {version for version, found in zip(asked, there, strict=True) if not found}

    def differing(self, version: int, content: bytes) -> bool:
        """Whether another content lies under a version's number."""
        (seal,) = self.server.ask(("GETRANGE", self._version(version), 0, SEAL_CHARACTERS - 1))
        return bytes(seal) not in (b"", content[:SEAL_CHARACTERS])

    def put(self, version: int, content: bytes) -> None:
        """Write a version as `content` gave it, unless it is there."""
        self._write(version, content)
        self.server.ask(
            ("HSET", self._sizes, version, len(content))
        )  # below those that `sizes` would look at

    def advance(self, version: int) -> None:
        """Let a version be the newest, unless a later one is."""
        self.server.ask(("EVAL", ADVANCE, 1, self._pointer, version))

    def _read(self, version: int) -> tuple[bytes, Checkpoint]:
        (content,) = self.server.ask(("GET", self._version(version)))
        try:
            if content is None:
                raise ValueError("it is missing")
            return bytes(content), unsealed(*apart(content))
        except ValueError as error:
            raise CheckpointError(
                f"version {version} of theta in Redis at {self.server.address}, {self._version(version)}, cannot "
                f"be used ({error}); restore this key from a backup of Redis, or stop all workers and the trainer, "
                f"delete it{self._back(version)}, and run `reptide rebuild --inexact`"
            ) from error

    def _back(self, version: int) -> str:
        """What else is to be done where a version is given up: the newest is pointed at."""
        return f", set {self._pointer} to {version - 1}" if version == self.current() else ""

    def publish(self, checkpoint: Checkpoint) -> bool:
        """Write a version if its predecessor is the newest; false if another trainer wrote it, or is ahead.

        Takes the durability lag.
        """
        if checkpoint.version != self.current() + 1:
            return False
        content = joined(*sealed(checkpoint))
        seal = content[:SEAL_CHARACTERS]
        stored = self._write(checkpoint.version, content)
        while (kept := self._written_before(checkpoint.version, content)) != stored:
            stored = kept
        self.server.meet()  # a master that was deposed meanwhile would show it to who still believes in it
        self.server.confirm()
        return self._move(checkpoint.version) and stored == seal

    def sizes(self) -> Mapping[int, int]:
        """Bytes of each version that is kept; only those that came since the last time are looked at."""
        (told,) = self.server.ask(("HGETALL", self._sizes))
        sizes = {int(version): int(size) for version, size in told.items()}
        new = iter(range(max(sizes, default=0) + 1, self.current() + 1))
        while page := list(islice(new, AT_ONCE)):
            lengths = self.server.ask(*(("STRLEN", self._version(version)) for version in page))
            found = {version: size for version, size in zip(page, lengths, strict=True) if size}
            with suppress(Unavailable):  # where Redis is full, which may be why they are asked for, as well
                self.server.ask(*(("HSET", self._sizes, version, size) for version, size in found.items()))
            sizes |= found
        return sizes

    def drop(self, versions: Set[int]) -> None:
        """Delete versions."""
        ordered = iter(sorted(versions))
        while page := list(islice(ordered, AT_ONCE)):
            self.server.ask(*(("UNLINK", self._version(version)) for version in page))
            self.server.ask(("HDEL", self._sizes, *page))

    def _written_before(self, version: int, content: bytes) -> bytes:
        self._sleep(self.durability_lag_s)
        return self._write(version, content)

    def _write(self, version: int, content: bytes) -> bytes:
        """Write a version unless there is one; returns the seal of what is there."""
        key = self._version(version)
        replies = self.server.ask(("SET", key, content, "NX"), ("GETRANGE", key, 0, SEAL_CHARACTERS - 1))
        return bytes(replies[1])

    def _move(self, version: int) -> bool:
        (at,) = self.server.ask(("EVAL", MOVE, 1, self._pointer, version - 1, version))
        return int(at) == version

    def _version(self, version: int) -> str:
        return f"{self._prefix}v:{version}"

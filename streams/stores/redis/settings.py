"""The settings that rows in Redis were folded under: one hash for each row layout of a stream, value by setting."""

from __future__ import annotations

import json

from streams.settings.kept import Flat
from streams.stores.base import key_of
from streams.stores.redis.server import RedisServer


class RedisSettings:
    """A `SettingsRecord` in Redis."""

    def __init__(self, server: RedisServer, stream: str, layout_fingerprint: int) -> None:
        self._server = server
        self._key = f"reptide:{key_of(stream)}:{layout_fingerprint:016x}:settings"

    def read(self) -> Flat | None:
        """What was kept; None where nothing was."""
        (kept,) = self._server.ask(("HGETALL", self._key))
        return {path.decode(): json.loads(value) for path, value in kept.items()} or None

    def add(self, settings: Flat) -> None:
        """Keep those of them that were not kept yet: of processes that start at once the first decides."""
        self._server.ask(*(("HSETNX", self._key, path, json.dumps(v)) for path, v in settings.items()))

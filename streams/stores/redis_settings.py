"""The settings that rows in Redis were folded under, one key for each row layout of a stream."""

from __future__ import annotations

import json

from streams.kept_settings import Flat
from streams.stores.base import key_of
from streams.stores.redis_server import RedisServer


class RedisSettings:
    """A `SettingsRecord` in Redis."""

    def __init__(self, server: RedisServer, stream: str, layout_fingerprint: int) -> None:
        self._server = server
        self._key = f"reptide:{key_of(stream)}:{layout_fingerprint:016x}:settings"

    def read(self) -> Flat | None:
        """What was kept; None where nothing was."""
        (kept,) = self._server.ask(("GET", self._key))
        if kept is None:
            return None
        settings: Flat = json.loads(kept)
        return settings

    def write(self, settings: Flat) -> None:
        """Put them in the place of what was there: of processes that start at once, all write the same."""
        self._server.ask(("SET", self._key, json.dumps(settings)))

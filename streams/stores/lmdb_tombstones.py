"""Tombstones in LMDB: of whom nothing is to be kept, as a keyed hash each, in a table of the store."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence, Set
from secrets import token_bytes
from typing import Any

from engine.stream.packed import Buffer
from streams.stores.base import SECRET_BYTES, digest_of

SECRET = b"secret"
END = struct.Struct("<d")


class LmdbTombstones:
    """The tombstones of a store, in a table of its file; `clock` gives seconds since the epoch."""

    def __init__(self, table: Any, clock: Callable[[], float]) -> None:
        self._table, self._clock = table, clock

    def among(self, transaction: Any, tasks: Sequence[str]) -> set[str]:
        """Those of tasks that have a live tombstone."""
        secret = transaction.get(SECRET, db=self._table)
        if secret is None:
            return set()
        now = self._clock()
        ends = ((task, transaction.get(digest_of(secret, task), db=self._table)) for task in tasks)
        return {task for task, end in ends if end is not None and _seconds(end) > now}

    def write(self, transaction: Any, tasks: Set[str], ttl_s: float) -> None:
        """Write tombstones, and remove those that have expired."""
        now, table = self._clock(), self._table
        ends = [(bytes(name), _seconds(end)) for name, end in transaction.cursor(db=table) if name != SECRET]
        for digest in (digest for digest, end in ends if end <= now):
            transaction.delete(digest, db=table)
        transaction.put(SECRET, token_bytes(SECRET_BYTES), db=table, overwrite=False)
        secret = bytes(transaction.get(SECRET, db=table))
        for task in tasks:
            transaction.put(digest_of(secret, task), END.pack(now + ttl_s), db=table)


def _seconds(packed: Buffer) -> float:
    return float(END.unpack(packed)[0])

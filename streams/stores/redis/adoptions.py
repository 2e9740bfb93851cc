"""The adoption table in Redis: versions of theta by offset, a hash for each partition of an incarnation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from itertools import islice

from streams.events.record import SourcePosition
from streams.stores.redis.server import RedisServer

TOLD = 10_000


class RedisAdoptions:
    """The adoptions of one row layout; `prefix` is that of its keys."""

    def __init__(self, server: RedisServer, prefix: str) -> None:
        self._server, self._prefix = server, prefix
        self._told: dict[SourcePosition, int] = {}
        """The latest last: a Redis that forgot one is told again."""

    def adopt(self, positions: Sequence[SourcePosition], version: int) -> list[int]:
        """Record that events from each position on are folded under `version`, unless one is recorded there."""
        places = [(self._table(at.incarnation, at.partition), at.offset) for at in positions]
        wanted = [self._told.get(at, version) for at in positions]
        replies = self._server.ask(
            *(("HSETNX", *place, one) for place, one in zip(places, wanted, strict=True)),
            *(("HGET", *place) for place in places),
        )
        adopted = [int(reply) for reply in replies[len(places) :]]
        if not self._told.keys() >= set(positions):
            self._server.confirm()  # before anything is said of events under them
        self._told.update(zip(positions, adopted, strict=True))
        while len(self._told) > TOLD:
            del self._told[next(iter(self._told))]
        return adopted

    def remind(self) -> None:
        """Record again what this process saw adopted, before another worker adopts otherwise.

        Not what lies before all that Redis still knows: pruning deletes the earliest, a crash forgets the latest.
        """
        tables = sorted({self._table(at.incarnation, at.partition) for at in self._told})
        held = self._server.ask(*(("HKEYS", table) for table in tables))
        first = {
            table: min(map(int, offsets), default=0) for table, offsets in zip(tables, held, strict=True)
        }
        self._server.ask(
            *(
                ("HSETNX", table, at.offset, version)
                for at, version in self._told.items()
                if at.offset >= first[table := self._table(at.incarnation, at.partition)]
            )
        )
        self._server.confirm()

    def record(self, cells: Mapping[SourcePosition, int]) -> None:
        """Write adoptions, whatever is recorded there."""
        self._server.ask(
            *(
                ("HSET", self._table(at.incarnation, at.partition), at.offset, version)
                for at, version in cells.items()
            )
        )

    def drop(self, cells: Set[SourcePosition]) -> None:
        """Delete adoptions, and remind nobody of them."""
        for at in cells:
            self._told.pop(at, None)
        ordered = iter(sorted(cells))
        while page := list(islice(ordered, TOLD)):
            self._server.ask(*(("HDEL", self._table(at.incarnation, at.partition), at.offset) for at in page))

    def all(self) -> Mapping[SourcePosition, int]:
        """The whole table."""
        found: dict[SourcePosition, int] = {}
        for key in self._server.keys(f"{self._prefix}*"):
            found |= self._cells(key)
        return found

    def of_other_layouts(self, stream: str) -> list[dict[SourcePosition, int]]:
        """The tables of all layouts but this one; `stream` is the prefix of all keys."""
        found: dict[str, dict[SourcePosition, int]] = {}
        for key in self._server.keys(f"{stream}:*:a:*:*"):
            if not key.startswith(self._prefix):
                found.setdefault(key.rpartition(":a:")[0], {}).update(self._cells(key))
        return [*found.values()]

    def layouts(self, stream: str) -> set[str]:
        """The prefix of every row layout that something was adopted under."""
        return {key.rpartition(":a:")[0] for key in self._server.keys(f"{stream}:*:a:*:*")}

    def _cells(self, key: str) -> dict[SourcePosition, int]:
        """The adoptions of one partition of an incarnation."""
        incarnation, partition = key.rsplit(":", 2)[1:]
        (cells,) = self._server.ask(("HGETALL", key))
        return {
            SourcePosition(int(incarnation, 16), int(partition), int(offset)): int(version)
            for offset, version in cells.items()
        }

    def _table(self, incarnation: int, partition: int) -> str:
        return f"{self._prefix}{incarnation:016x}:{partition}"

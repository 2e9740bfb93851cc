"""The adoption table in Redis: versions of theta by offset, a hash for each partition of an incarnation.

A table of before incarnations were recorded (`a:PARTITION`) is taken over, once, for the incarnation that the rows
were folded from; a topic that was made anew since adopts by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from itertools import islice

from engine.table import Layout
from streams.errors import StoreError
from streams.logs.base import SourcePosition
from streams.stores.redis_server import RedisServer

TOLD = 10_000
INCARNATION_BYTES = 8


class RedisAdoptions:
    """The adoptions of one row layout; `prefix` is that of its keys, `rows` that of its rows."""

    def __init__(self, server: RedisServer, prefix: str, rows: str, layout: Layout) -> None:
        self._server, self._prefix, self._rows, self._layout = server, prefix, rows, layout
        self._told: dict[SourcePosition, int] = {}
        """The latest last: a Redis that forgot one is told again."""
        self._met: set[int] = set()
        """Partitions whose table of before is taken over, if there was one."""

    def adopt(self, position: SourcePosition, version: int) -> int:
        """Record that events from `position` on are folded under `version`, unless one is recorded there."""
        if position.partition not in self._met:
            self.take_over(position.partition)
        version = self._told.get(position, version)
        table, offset = self._table(position.incarnation, position.partition), position.offset
        replies = self._server.ask(("HSETNX", table, offset, version), ("HGET", table, offset))
        self._told[position] = int(replies[1])
        while len(self._told) > TOLD:
            del self._told[next(iter(self._told))]
        return self._told[position]

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
        self.take_over_all()
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

    def _cells(self, key: str) -> dict[SourcePosition, int]:
        """The adoptions of one partition of an incarnation."""
        incarnation, partition = key.rsplit(":", 2)[1:]
        (cells,) = self._server.ask(("HGETALL", key))
        return {
            SourcePosition(int(incarnation, 16), int(partition), int(offset)): int(version)
            for offset, version in cells.items()
        }

    def take_over_all(self) -> None:
        """Take over every table of before: while the rows still say what it was recorded for."""
        for key in list(self._server.keys(f"{self._prefix}*")):
            if ":" not in key.removeprefix(self._prefix):
                self.take_over(int(key.removeprefix(self._prefix)))

    def take_over(self, partition: int) -> None:
        """Name the incarnation of a table of before; done again after a crash, it comes to the same."""
        before = f"{self._prefix}{partition}"
        (cells,) = self._server.ask(("HGETALL", before))
        if cells:
            table = self._table(self._incarnation_of_rows(before), partition)
            self._server.ask(*(("HSETNX", table, offset, version) for offset, version in cells.items()))
            self._server.ask(("UNLINK", before))
        self._met.add(partition)

    def _table(self, incarnation: int, partition: int) -> str:
        return f"{self._prefix}{incarnation:016x}:{partition}"

    def _incarnation_of_rows(self, before: str) -> int:
        """What the rows were folded from: all of them from one incarnation, since they refuse any other."""
        at = self._layout.dtype.fields["incarnation"][1]  # type: ignore[index]
        for key in self._server.keys(f"{self._rows}*"):
            (head,) = self._server.ask(("GETRANGE", key, at, at + INCARNATION_BYTES - 1))
            incarnation = int.from_bytes(head, "little")
            if len(head) == INCARNATION_BYTES and incarnation:
                return incarnation
        raise StoreError(
            f"{before} in Redis holds adoptions without the incarnation of their topic, as an earlier version wrote "
            "them, and there is no row to tell it; delete this key, and events are folded under the newest theta"
        )

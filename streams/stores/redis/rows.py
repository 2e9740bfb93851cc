"""Rows in Redis: the store that any number of workers share, on one server or on Redis Cluster.

    reptide:STREAM:LAYOUT:t:TASK         a row
    reptide:STREAM:LAYOUT:a:INCARNATION:PARTITION   a hash: version of theta by offset
    reptide:STREAM:LAYOUT:partitions     how many partitions the input had when rows were first folded from it
    reptide:STREAM:LAYOUT:unfinished     the command that is making the rows anew, until it has
    reptide:STREAM:LAYOUT:made           another token each time that rows begin to be made anew
    reptide:STREAM:forgotten             a hash: tombstones, the secret of their digests, and their edition

No name holds a brace, so no task picks its slot; and no operation needs two keys, so any shard serves it: a command
names several where they lie on one server, which costs less.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from itertools import chain, islice
from secrets import token_bytes
from typing import Any

from engine.batches import blocks
from engine.stream.layout import HEAD_BYTES, Layout
from engine.stream.packed import plain
from engine.stream.table import TaskTable
from streams.errors import StoreError
from streams.events.record import SourcePosition
from streams.stores.base import Swap, digest_of_row, key_of
from streams.stores.redis.adoptions import RedisAdoptions
from streams.stores.redis.scripts import LEASE, SWAP
from streams.stores.redis.server import RedisServer
from streams.stores.redis.tombstones import RedisTombstones

FORGOTTEN = b"forgotten"
"""In the place of a row just deleted: it has no revision, so whoever read the row before loses the swap."""


FORGOTTEN_S = 60


AT_ONCE, ROWS_AT_ONCE = 1000, 256


class RedisStore:
    """A `RecordStore` in Redis; rows not written for `ttl_s` seconds are dropped by the server, 0: never.

    Reading a row that has less than half of that left is writing it, in this respect.
    """

    def __init__(
        self,
        server: RedisServer,
        stream: str,
        layout: Layout,
        ttl_s: int = 0,
        clock: Callable[[], float] = time.time,
        packed: bool = False,
    ) -> None:
        self.server, self.ttl_s, self._layout, self._packed = server, ttl_s, layout, packed
        self._stream = f"reptide:{key_of(stream)}"
        self._rows = f"{self._stream}:{layout.fingerprint:016x}:t:"
        prefix = f"{self._stream}:{layout.fingerprint:016x}:a:"
        self._adoptions = RedisAdoptions(server, prefix)
        self._partitions = f"{self._stream}:{layout.fingerprint:016x}:partitions"
        self._unfinished = f"{self._stream}:{layout.fingerprint:016x}:unfinished"
        self._made = f"{self._stream}:{layout.fingerprint:016x}:made"
        self.tombstones = RedisTombstones(server, f"{self._stream}:forgotten", clock)
        self._counted = 0  # of partitions, as recorded

    def load(self, layout: Layout, tasks: Sequence[str]) -> TaskTable:
        """The rows of tasks, but of those that have a live tombstone; a task never seen is the empty row."""
        keys = [self._rows + key_of(task) for task in tasks]
        edition, *stored = self.server.ask(
            self.tombstones.asks_edition,
            *(self._lease(keys) if self.ttl_s else self._read(keys)),
        )
        forgotten = self.tombstones.among(tasks, edition)
        rows = [
            (task, None if row == FORGOTTEN else row)
            for task, row in zip(tasks, chain.from_iterable(stored), strict=True)
            if task not in forgotten
        ]
        return TaskTable.decode(layout, [task for task, _ in rows], [row for _, row in rows])

    def swap(self, states: TaskTable) -> list[Swap]:
        """Write each row if the stored one still has the revision that this one carries; raises the revision.

        A reply that got lost is no harm: the client asks again, and is told `ALREADY`.
        """
        read = states.rows["revision"].astype("<i8").tobytes()
        keys = [self._rows + key_of(task) for task in states.ids]
        with states.next_revision(self._packed) as written:
            swaps = [(read[8 * u : 8 * u + 8], row) for u, row in enumerate(written)]
            replies = self.server.ask(
                *(
                    (
                        "EVAL",
                        SWAP,
                        len(keys[part]),
                        *keys[part],
                        self.ttl_s,
                        *chain.from_iterable(swaps[part]),
                    )
                    for part in blocks(len(keys), self.server.keys_at_once)
                )
            )
        return [Swap(reply.decode()) for reply in chain.from_iterable(replies)]

    def adopt(self, positions: Sequence[SourcePosition], version: int) -> list[int]:
        """Record that events from each position on are folded under `version`, unless one is recorded there."""
        return self._adoptions.adopt(positions, version)

    def remind(self) -> None:
        """Record again what this process saw adopted, before another worker adopts otherwise."""
        self._adoptions.remind()
        if self._counted:
            self.server.ask(("SET", self._partitions, self._counted, "NX"))

    def adoptions(self) -> Mapping[SourcePosition, int]:
        """The whole adoption table: version by position. Looks through all keys."""
        return self._adoptions.all()

    def adoptions_of_other_layouts(self) -> Sequence[Mapping[SourcePosition, int]]:
        """The adoption tables of the same stream under other row layouts. Looks through all keys."""
        return self._adoptions.of_other_layouts(self._stream)

    def drop_adoptions(self, cells: Set[SourcePosition]) -> None:
        """Delete adoptions."""
        self._adoptions.drop(cells)

    def partitions(self, first: int = 0) -> int:
        """How many partitions the input had when rows were first folded from it; 0 while that is not known."""
        if first and first == self._counted:
            return first
        written = (("SET", self._partitions, first, "NX"),) if first else ()
        recorded = int(self.server.ask(*written, ("GET", self._partitions))[-1] or 0)
        if recorded == first:
            self._counted = recorded
        return recorded

    def set_partitions(self, count: int) -> None:
        """Record that all rows are folded from an input of so many partitions."""
        self.server.ask(("SET", self._partitions, count))
        self._counted = count

    def tasks(self) -> Iterator[str]:
        """The key of every row."""
        for keys in self._pages(f"{self._rows}*"):
            sizes = self.server.ask(*(("STRLEN", key) for key in keys))
            yield from (
                key.removeprefix(self._rows)
                for key, size in zip(keys, sizes, strict=True)
                if size >= HEAD_BYTES
            )

    def stored(self) -> Iterator[list[tuple[str, bytes]]]:
        """All rows by key, not packed, page by page, as they are read one after the other; one may come twice."""
        for keys in self._pages(f"{self._rows}*", ROWS_AT_ONCE):
            replies = chain.from_iterable(self.server.ask(*self._read(keys)))
            found = {k: row for k, row in zip(keys, replies, strict=True) if row and len(row) >= HEAD_BYTES}
            rows = plain([*found.values()], self._layout.dtype)
            yield [(key.removeprefix(self._rows), row) for key, row in zip(found, rows, strict=True)]

    def put(self, rows: Sequence[tuple[str, bytes]]) -> None:
        """Write rows, by key, whatever is stored; those of tasks that were forgotten stay away."""
        known = self.tombstones.live()
        lives = ("EX", self.ttl_s) if self.ttl_s else ()
        self.server.ask(
            *(
                ("SET", self._rows + key, row, *lives)
                for key, row in rows
                if not known.until_s or digest_of_row(known.secret, key) not in known.until_s
            )
        )

    def record(self, cells: Mapping[SourcePosition, int]) -> None:
        """Write adoptions, whatever is recorded there."""
        self._adoptions.record(cells)

    def begin(self, command: str) -> str | None:
        """From here on the rows are no state to go on from, until `finished`.

        Returns:
            The command that was stopped before it had made them anew; None where they were whole.

        """
        stopped, *_ = self.server.ask(
            ("GET", self._unfinished),
            ("SET", self._unfinished, command),
            ("SET", self._made, token_bytes(8)),
        )
        return None if stopped is None else stopped.decode()

    def made(self) -> bytes | None:
        """Another token since the rows were last made anew."""
        (token,) = self.server.ask(("GET", self._made))
        return token  # type: ignore[no-any-return]

    def finished(self) -> None:
        """They are one again."""
        self.server.ask(("UNLINK", self._unfinished))

    def check_finished(self, but: str | None = None) -> None:
        """Refuse rows that a command was making anew when it was stopped, unless it is `but` this one.

        Raises:
            StoreError: there are such.
        """
        (command,) = self.server.ask(("GET", self._unfinished))
        if command is not None and command.decode() != but:
            raise StoreError(
                f"`reptide {command.decode()}` is making the rows in Redis at {self.server.address} anew, or was "
                "stopped before it had; wait for its end, or run it again"
            )

    def clear(self) -> None:
        """Forget all rows of this layout; adoptions and tombstones stay."""
        for keys in self._pages(f"{self._rows}*"):
            self.server.ask(*(("UNLINK", key) for key in keys))

    def forget(self, tasks: Set[str], ttl_s: float) -> set[str]:
        """Delete the rows of tasks, of every layout (all keys are looked through), and keep tombstones for `ttl_s`.

        Redis' own files lose the bytes when they are next rewritten: the append-only file is asked to be now,
        a snapshot is by the next `BGSAVE`.
        """
        self.tombstones.write(tasks, ttl_s)
        rows = {self._rows, *(f"{layout}:t:" for layout in self._adoptions.layouts(self._stream))}
        keys = [(task, prefix + key_of(task)) for task in sorted(tasks) for prefix in sorted(rows)]
        sizes = self.server.ask(*(("STRLEN", key) for _, key in keys))
        self.server.ask(*(("SET", key, FORGOTTEN, "EX", FORGOTTEN_S) for _, key in keys))
        self.confirm()
        if any(told.get("aof_enabled") for told in self.server.each_if_allowed("INFO", "persistence")):
            self.server.each_if_allowed("BGREWRITEAOF")
        return {task for (task, _), size in zip(keys, sizes, strict=True) if size >= HEAD_BYTES}

    def forgotten(self, tasks: Sequence[str]) -> set[str]:
        """Those of tasks that have a live tombstone; one small read while no task is forgotten."""
        (edition,) = self.server.ask(self.tombstones.asks_edition)
        return self.tombstones.among(tasks, edition)

    def confirm(self) -> None:
        """Return once as many replicas as are wanted have all that was written; see `RedisServer.confirm`."""
        self.server.confirm()

    def ping(self) -> None:
        """Raise `Unavailable` unless every node answers."""
        self.server.meet()

    def close(self) -> None:
        """Close the connections."""
        self.server.close()

    def _read(self, keys: Sequence[str]) -> list[tuple[Any, ...]]:
        """Commands that read what lies under keys: a list of rows each, None where there is none."""
        return [("MGET", *keys[part]) for part in blocks(len(keys), self.server.keys_at_once)]

    def _lease(self, keys: Sequence[str]) -> list[tuple[Any, ...]]:
        """The same, of rows that are to live until they are written again."""
        return [
            ("EVAL", LEASE, len(keys[part]), *keys[part], self.ttl_s)
            for part in blocks(len(keys), self.server.keys_at_once)
        ]

    def _pages(self, pattern: str, size: int = AT_ONCE) -> Iterator[list[str]]:
        keys = self.server.keys(pattern)
        while page := list(islice(keys, size)):
            yield page

"""A worker's service on a real Redis and a log in memory, and what befalls Redis between two of its batches.

A fault strikes after a batch that the test names, so the same test is the same history. What is left is compared
with an uninterrupted fold of the same log under the adoptions that Redis ends with.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from threading import Event
from typing import Any

import numpy as np

from engine.outer.fit import start
from engine.stream.table import TaskTable
from streams.logs.memory import MemoryLog
from streams.program import worker_service
from streams.program.progress import Progress
from streams.program.trainer import Trainer
from streams.program.worker_service import WorkerService
from streams.stores.base import Swap
from streams.stores.redis.rows import RedisStore
from streams.stores.redis.server import RedisServer
from streams.watch.health import Health
from tests.faults.model import NOT_PROMISED, SPEC, World, engine, online, stream

BATCH = 10
TRAIL = 2
"""Commits trail by so many batches, as they do by a durability lag."""
WAIT_S = 0.05
DEADLINE_S = 90.0

Fault = Callable[[], object]


class TrailingLog(MemoryLog):
    """A log of one member whose commits trail; at its end it stops the service."""

    def __init__(self, world: World, stopping: Event) -> None:
        super().__init__()
        self.records, self.stopping = world.records, stopping
        self.folded: list[Mapping[tuple[int, int], int]] = []
        self.skipped: dict[tuple[int, int], int] = {}
        self.rewinds = 0
        self.while_waiting: Iterator[Fault] = iter(())
        """What happens each time that the worker waits for a server."""
        self.deadline = time.monotonic() + DEADLINE_S

    def poll(self, max_events: int, timeout_s: float = 0.0) -> Any:
        polled = super().poll(max_events, timeout_s)
        if not polled:
            self.stopping.set()
        return polled

    def commit(self, offsets: Mapping[tuple[int, int], int]) -> None:
        self.folded.append(offsets)
        if len(self.folded) > TRAIL:
            super().commit(self.folded.pop(0))

    def wait(self, timeout_s: float) -> None:
        assert time.monotonic() < self.deadline, "the worker waits for ever"
        next(self.while_waiting, lambda: None)()
        time.sleep(min(timeout_s, WAIT_S))

    def rewind(self) -> None:
        self.rewinds += 1
        self.folded.clear()
        self.seek(self.committed())

    def assigned(self) -> set[int]:
        return {0}

    def lag(self) -> Mapping[tuple[int, int], int]:
        return {(0, 0): self.end() - self.position()}

    def close(self) -> None:
        pass


class RedisWorker:
    """One worker, and what it left.

    Args:
        server: the connection to Redis.
        name: of the stream.
        faults: what happens after the nth batch, counted from 1 in the order in which they are folded.
        length: of the log, in events.

    """

    def __init__(
        self, server: RedisServer, name: str, faults: Mapping[int, Fault], length: int = 200
    ) -> None:
        self.stopping, self.said = Event(), list[str]()
        self.world = World(stream(3, length, tasks=12))
        self.log = TrailingLog(self.world, self.stopping)
        self.store = RedisStore(server, name, engine().layout)
        self.faults, self.batches = dict(faults), 0
        self.trainer = Trainer(SPEC, online(), self.world.meta)
        worker = replace(self.world.program(BATCH).worker, log=self.log, store=self.store)
        self.service = WorkerService(
            worker, self.log, ["events"], Health(worker_service.CONDITIONS, 60.0), 0.25, 10**6,
            self._after, self.said.append, self.store.ping, lambda: None,
        )  # fmt: skip

    def run(self) -> RedisWorker:
        """Fold the log to its end."""
        self.service.run(self.stopping)
        return self

    def before_the_nth_swap(self, nth: int, fault: Fault) -> None:
        """Let something happen within a batch: its rows are folded and said, and not written yet."""
        swap, left = self.store.swap, iter(range(nth - 1))

        def struck(states: TaskTable) -> list[Swap]:
            if next(left, None) is None:
                self.store.swap = swap  # type: ignore[method-assign]
                fault()
            return swap(states)

        self.store.swap = struck  # type: ignore[method-assign]

    @property
    def rows(self) -> dict[str, bytes]:
        """Every row in Redis by key, but for what is not promised."""
        return _told({key: row for page in self.store.stored() for key, row in page})

    @property
    def outputs(self) -> dict[str, frozenset[bytes]]:
        """Lines by topic; of two lines that say the same one is a repeat."""
        return _lines(self.world)

    def uninterrupted(self) -> tuple[dict[str, bytes], dict[str, frozenset[bytes]]]:
        """Rows and outputs of one fold of the log under the adoptions that Redis holds."""
        world = World(self.world.records)
        for checkpoint in self.world.meta.versions:
            world.meta.keep(checkpoint)
        world.store.record(self.store.adoptions())
        worker = world.program(BATCH).worker
        while worker.step() is not None:
            pass
        return _told(world.store.rows), _lines(world)

    def lost(self) -> int:
        """How many events of the log no row has counted."""
        whole, _ = self.uninterrupted()
        return _counted(whole) - _counted(self.rows)

    def _after(self, _: Progress) -> None:
        """Publish a version now and then, and let happen what is to."""
        self.batches += 1
        if self.batches % 4 == 0:
            version = self.world.meta.current() + 1
            self.trainer.publish(version, start(online().learner, version), {})
        self.faults.pop(self.batches, lambda: None)()


def _told(rows: Mapping[str, bytes]) -> dict[str, bytes]:
    """Rows as they compare."""
    table = TaskTable.decode(engine().layout, list(rows), list(rows.values()))
    for name in NOT_PROMISED:
        table.rows[name] = 0
    return {key: table.rows[u].tobytes() for u, key in enumerate(rows)}


def _counted(rows: Mapping[str, bytes]) -> int:
    """How many events rows have counted."""
    return int(np.frombuffer(b"".join(rows.values()), engine().layout.dtype)["counts"].sum())


def _lines(world: World) -> dict[str, frozenset[bytes]]:
    return {topic: frozenset(output.lines) for topic, output in world.outputs.items()}

"""Measure what many tasks cost: bytes of each, CPU of an event among a thousand and among a million, and a start.

Tasks of 32 features and their own past, that keep 16 examples and 16 pending observations; half of the labels come at
once, half 16 observations later. Stores are filled with rows of tasks that have had four labels; batches of 8,192
events, of 1,024 tasks drawn from all, are loaded, folded and swapped; then their rows are put back, so that tasks are
equally old however many there are: old ones adapt more rarely, and have longer rows. Bytes are those of a packed row
and of its room in LMDB, in both precisions; and what the file of LMDB and the memory of Redis come to in the one that
is chosen. Redis runs on the same machine, and its CPU is not counted; of LMDB it is.

    python -m benchmarks.scale [--json F] [--quick] [--precision half]
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch

from benchmarks.reporting import Figure, arguments, show, write
from benchmarks.stream import FEATURES, LATER, settings_of
from engine.stream.events import EventBatch
from engine.stream.fold import Engine
from engine.stream.layout import Layout
from engine.stream.table import TaskTable
from engine.types import Kind, Meta
from streams.assembly.parts import described
from streams.settings.tree import validated
from streams.stores.base import key_of
from streams.stores.lmdb import LmdbStore
from streams.stores.redis.rows import RedisStore
from streams.stores.redis.server import RedisServer
from streams.testing.servers import redis_server

FEW, MANY, QUICK = 1_024, 1_000_000, 4_096
"""Tasks of a store."""

TASKS, EACH = 1_024, 4
"""Tasks of a batch, and observations of each: as many labels."""

LABELS = (1, 4, 16, 64)
"""After which rows are measured,"""

GROWN = 4
"""and of tasks that stores are filled with."""

PRECISIONS = ("single", "half")
"""Of rows; stores are in the first, or in the one that is chosen."""

IN_LMDB = 16_384
"""Tasks of which the file's room is measured."""

BATCHES, WARM_UP = 24, 4
AT_ONCE = 4_096


@dataclass
class Traffic:
    """Batches of the same shape, one after the other in the log, of any tasks."""

    drawn: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    count: int = 0

    def batch(self) -> EventBatch:
        """[8,192] events of rows 0 to 1,023: observations, each followed by its label or that of an earlier one."""
        rows = np.tile(np.repeat(np.arange(TASKS), 2), EACH)
        kind = np.tile(np.array([Kind.OBSERVATION, Kind.LABEL], np.uint8), TASKS * EACH)
        n = np.repeat(np.arange(TASKS * EACH), 2)
        late = (kind == Kind.LABEL) & (self.drawn.random(len(n)) < 0.5)[n]
        number = self.count // 2 + n - late * LATER * TASKS
        offset = self.count + np.arange(len(n))
        self.count += len(n)
        return EventBatch(
            row=rows,
            kind=kind,
            id=number.astype(np.uint64) + np.uint64(1 << 40),
            time_s=offset.astype(np.float64),
            x=self.drawn.normal(size=(len(n), FEATURES)).astype(np.float32),
            has_x=kind == Kind.OBSERVATION,
            y=self.drawn.integers(0, 2, len(n)).astype(np.float32),
            topic=np.zeros(len(n), np.int64),
            offset=offset,
            partition=np.zeros(len(n), np.int64),
            incarnation=np.ones(len(n), np.uint64),
        )


def engine_and_theta(precision: str) -> tuple[Engine, Meta]:
    """As `benchmarks.stream` has them, but for fewer pending observations."""
    tree = settings_of(Path("none.parquet"), Path("none")).model_dump()
    tree["memory"] |= {"pending": 16, "precision": precision}
    engine = Engine(*described(validated(tree, "benchmarks.scale")))
    return engine, Meta(1, engine.learner.init(0))


def grown(engine: Engine, theta: Meta, traffic: Traffic) -> dict[int, TaskTable]:
    """Rows of 1,024 tasks after so many labels each."""
    table, found = TaskTable.empty(engine.layout, [f"user-{u}" for u in range(TASKS)]), {}
    one = [np.arange(2 * TASKS * n, 2 * TASKS * (n + 1)) for n in range(EACH)]
    labels = 0
    while labels < max(LABELS):
        batch = traffic.batch()
        for index in one:
            table = engine.fold(table, _some(batch, index), theta).states
            labels += 1
            if labels in LABELS:
                found[labels] = table
    return found


def _some(batch: EventBatch, index: Any) -> EventBatch:
    columns = {name: value for name, value in vars(batch).items() if name != "not_after_s"}
    return EventBatch(**{name: value[index] for name, value in columns.items()})


Store = LmdbStore | RedisStore


def fill(store: Store, rows: Sequence[bytes], tasks: Sequence[int]) -> None:
    """Write tasks of these numbers, whose rows are these over and over."""
    for begin in range(0, len(tasks), AT_ONCE):
        numbers = tasks[begin : begin + AT_ONCE]
        store.put([(key_of(f"user-{n}"), rows[n % len(rows)]) for n in numbers])


def cost_us(
    engine: Engine, theta: Meta, store: Store, rows: Sequence[bytes], tasks: int, batches: int
) -> float:
    """CPU microseconds of an event: its share of load, fold and swap."""
    chosen, traffic, spent = np.random.default_rng(1), Traffic(count=1 << 30), 0.0
    for n in range(WARM_UP + batches):
        numbers = sorted(chosen.choice(tasks, TASKS, replace=False).tolist())
        names = [f"user-{u}" for u in numbers]
        batch, began = traffic.batch(), process_time()
        store.swap(engine.fold(store.load(engine.layout, names), batch, theta).states)
        spent += process_time() - began if n >= WARM_UP else 0.0
        fill(store, rows, numbers)
    return spent / (batches * 2 * TASKS * EACH) * 1e6


@contextmanager
def opened(kind: str, layout: Layout) -> Iterator[tuple[Store, Callable[[], float]]]:
    """An empty store, and what tells how many bytes it takes; in Redis rows are packed."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if kind == "LMDB":
            store: Store = LmdbStore(folder / "rows")
            yield store, lambda: (folder / "rows" / "data.mdb").stat().st_blocks * 512.0
        else:
            server = RedisServer(f"redis://{stack.enter_context(redis_server(folder)).address}")
            store = RedisStore(server, "scale", layout, packed=True)
            yield store, lambda: float(server.ask(("INFO", "memory"))[0]["used_memory"])
        store.close()


def measured(engine: Engine, theta: Meta, tasks: int, batches: int) -> dict[str, float]:
    """Bytes and cost of a store of so many tasks, of each kind."""
    figures: dict[str, float] = {}
    rows = [bytes(row) for row in grown(engine, theta, Traffic())[GROWN].encode(pack=True)]
    for kind in ("LMDB", "Redis"):
        with opened(kind, engine.layout) as (store, size):
            empty = size()
            fill(store, rows, range(tasks))
            figures[f"{kind}, bytes a task"] = (size() - empty) / tasks
            began = perf_counter()
            store.load(engine.layout, ["user-1"])
            figures[f"{kind}, ms to a first row"] = (perf_counter() - began) * 1e3
            figures[f"{kind}, us an event"] = cost_us(engine, theta, store, rows, tasks, batches)
    return figures


def row_bytes(precision: str) -> dict[str, dict[str, float]]:
    """Bytes of a row after so many labels: packed, and as the file of LMDB has room for it."""
    engine, theta = engine_and_theta(precision)
    found: dict[str, dict[str, float]] = {f"{precision}, packed": {}, f"{precision}, LMDB": {}}
    for labels, table in grown(engine, theta, Traffic()).items():
        rows = [bytes(row) for row in table.encode(pack=True)]
        with opened("LMDB", engine.layout) as (store, size):
            empty = size()
            fill(store, rows, range(IN_LMDB))
            sizes = float(np.mean([len(row) for row in rows])), (size() - empty) / IN_LMDB
        for of, value in zip(found.values(), sizes, strict=True):
            of[f"{labels} labels"] = value
    return found


def main() -> None:
    """Measure both precisions of a row, and both numbers of tasks."""
    options = arguments(__doc__.splitlines()[0], precision=PRECISIONS)
    torch.set_num_threads(1)
    engine, theta = engine_and_theta(options.chosen["precision"])
    many, batches = (QUICK, 2) if options.quick else (MANY, BATCHES)
    sizes = {name: of for precision in PRECISIONS for name, of in row_bytes(precision).items()}
    show(
        f"bytes of a row after so many labels; whole it is {engine.layout.bytes_per_task:,}",
        ["", *(f"{labels} labels" for labels in LABELS)],
        [[name, *of.values()] for name, of in sizes.items()],
    )
    few, more = (measured(engine, theta, tasks, batches) for tasks in (FEW, many))
    rows: list[list[Figure]] = [[name, few[name], more[name], more[name] / few[name]] for name in few]
    show("stores", ["", f"{FEW:,} tasks", f"{many:,} tasks", "ratio"], rows)
    figures: dict[str, Figure] = {
        f"bytes, {name}, {labels}": size for name, of in sizes.items() for labels, size in of.items()
    }
    figures |= {f"{FEW} tasks, {name}": value for name, value in few.items()}
    figures |= {f"{many} tasks, {name}": value for name, value in more.items()}
    figures["x_cost"] = max(more[name] / few[name] for name in few if name.endswith("us an event"))
    write(options.json, figures)


if __name__ == "__main__":
    main()

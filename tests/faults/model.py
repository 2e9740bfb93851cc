"""Up to three workers over one set of in-memory parts, one effect at a time, in any order, dying anywhere.

Each worker is the whole embedded program (worker and trainer) in a thread of its own, which runs only while
it has the turn and waits, or dies, just before the effect that its turn names. What the shared parts hold
is what outlives the processes. So a schedule is a value, and the same schedule is the same history.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from functools import cache, partial
from threading import Semaphore, Thread
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from engine.detectors.detectors import PageHinkley
from engine.features.columns import Numeric
from engine.features.encoder import Features
from engine.features.history import History
from engine.networks.mlp import mlp
from engine.outer.backprop import Backprop
from engine.outer.descent import FitSettings
from engine.outer.online import Online, Rates
from engine.problem import InnerLoop, Problem
from engine.stream.fold import Engine
from engine.stream.spec import Memory, Policy, StreamSpec
from engine.targets import Classification
from engine.types import Kind
from streams.events.record import NULL_VALUE, ONLY, Offsets, Record, SourcePosition
from streams.logs.memory import INCARNATION, Crash, MemoryLog, MemoryOutput, no_crash
from streams.logs.output import TOPICS, OutputWriter
from streams.program.embedded import Embedded, steps
from streams.program.label_log import LabelLog
from streams.program.outputs import DeadLetterLines, Outputs
from streams.program.room import Room
from streams.program.rounds import Rounds
from streams.program.schedule import Schedule
from streams.program.theta import ThetaCache
from streams.program.trainer import Trainer
from streams.program.worker import Worker
from streams.settings.places import FOR_EVER_S
from streams.stores.memory import MemoryMeta, MemoryStore

SPEC = StreamSpec(
    Problem(
        Features((Numeric("a"), Numeric("b"))),
        Classification(("x", "y")),
        network=partial(mlp, hidden=(8,)),
        inner=InnerLoop(steps=1, lr="auto"),
        support=4,
        history=History(numbers=("a",)),
        wide=True,
    ),
    memory=Memory(pending=3, ttl_s=50.0),
    policy=Policy(every=3, recent=2, refractory=3),
    detector=PageHinkley(min_instances=3, delta=0.0, threshold=0.15),
)
RATES = Rates(FitSettings(lr=0.1))
GRID = 8
"""Theta is adopted, and an outer round falls due, every so many events."""

WINDOW = 6
"""Labels that are trained on again: fewer than there are."""

EFFECTS = (
    "poll", "adopt", "load", "append", "sync", "swap", "forget", "confirm", "commit", "read", "publish",
)  # fmt: skip
LONGEST_TURN = 150
NOT_PROMISED = ["revision", "checksum"]
"""How often a row was written depends on the cuts and the races; what it holds does not."""


@cache
def engine() -> Engine:
    """One engine for all examples, so that its tensor functions are recorded once."""
    return Engine(SPEC)


@cache
def online() -> Online:
    """One outer loop for all examples, for the same reason; it holds nothing of any of them."""
    return Online(engine().learner, Backprop(), RATES)


class Turn(NamedTuple):
    """A worker runs until just before its next effect of a kind, and there it waits, or dies."""

    worker: int
    until: str
    times: int = 1
    """Which of its next effects of that kind."""
    dies: bool = False
    batch: int = 5
    """Batch size of the process, if it starts with this turn."""
    back: int = 0
    """How many events before the committed position it begins, if it starts with this turn."""


class Left(NamedTuple):
    """What a run leaves behind, comparable bit for bit."""

    rows: dict[str, dict[str, bytes]]
    """Every field of every row but `NOT_PROMISED`."""
    lines: dict[str, frozenset[bytes]]
    """Output lines by topic. Equal sets: nothing is lost, and what is repeated is identical."""
    versions: list[Any]
    """Parameters, optimizer, statistics and step count of each version of theta."""
    adoptions: dict[SourcePosition, int]

    def differs(self, other: Left) -> list[str]:
        """Names of the parts that differ."""
        return [name for name in self._fields if getattr(self, name) != getattr(other, name)]


class _Lines(MemoryOutput):
    """An output that a crash can cut short between two lines, and that is read in a moment of its own."""

    def append(self, lines: Sequence[bytes], keys: Sequence[bytes] = ()) -> None:
        for line in lines:
            super().append([line])

    def read(self, position: int, max_lines: int) -> tuple[list[bytes], int]:
        self.before("read")
        return super().read(position, max_lines)


class _Reader(MemoryLog):
    """One worker's place in the log; the committed position is shared."""

    def __init__(self, world: World) -> None:
        super().__init__(before=world.before)
        self.records = world.records
        self.world = world

    def committed(self) -> int:
        return self.world.committed

    def commit(self, offsets: Offsets) -> None:
        self.before("commit")
        self.world.committed = offsets[ONLY]


class _Late(Future[Any]):
    """What is done when its result is asked for."""

    def __init__(self, action: Callable[[], Any]) -> None:
        super().__init__()
        self._action = action

    def result(self, timeout: float | None = None) -> Any:
        self.set_result(self._action())
        return super().result(timeout)


class LateThread(Executor):
    """The thread beside at its slowest: it begins when it is waited for, and so always at the same moment."""

    def submit(self, action: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        return _Late(partial(action, *arguments, **options))


class World:
    """What outlives every process: the log and its committed position, rows, versions of theta, outputs."""

    def __init__(self, records: Sequence[Record], is_late: bool = False) -> None:
        """Where it `is_late`, a batch is written once the next is folded; and no message forgets a task."""
        self.is_late = is_late
        self.hook: Callable[[str], None] = no_crash
        self.records = MemoryLog(records).records
        self.committed = 0
        self.store = MemoryStore(self.before)
        self.meta = MemoryMeta(self.before)
        self.outputs = {topic: _Lines(self.before) for topic in TOPICS}

    def before(self, effect: str) -> None:
        self.hook(effect)

    def program(self, batch: int, back: int = 0) -> Embedded:
        """A process that starts now."""
        log = _Reader(self)
        log.seek(max(0, self.committed - back))
        dead_letters = DeadLetterLines(self.outputs["dead-letter"], log.origin)
        trainer = Trainer(
            SPEC, online(), self.meta, seed=1, batch=4, held_out=0.5, fewest_tasks=2, window=WINDOW
        )
        labels = LabelLog(self.outputs["episodes"], trainer.labels)
        said: dict[str, OutputWriter] = {**self.outputs, "episodes": labels}
        outputs = Outputs(said, dead_letters, SPEC.problem, support_rate=0.7)
        worker = Worker(
            engine(), log, self.store, ThetaCache(engine(), self.meta), outputs, batch, Schedule(GRID),
            forgets_for_s=None if self.is_late else FOR_EVER_S,
        )  # fmt: skip
        rounds = Rounds(trainer, labels, INCARNATION)
        beside = LateThread if self.is_late else None
        room = Room(self.store, engine().layout, worker.schedule, 0)  # type: ignore[arg-type]
        return Embedded(engine(), log, self.store, worker, trainer, rounds, self.outputs, room, beside=beside)  # type: ignore[arg-type]

    def left(self) -> Left:
        layout = engine().layout
        names = [name for name in layout.dtype.names or () if name not in NOT_PROMISED]
        decoded = {key: np.frombuffer(row, layout.dtype)[0] for key, row in sorted(self.store.rows.items())}
        return Left(
            {key: {name: row[name].tobytes() for name in names} for key, row in decoded.items()},
            {topic: frozenset(output.lines) for topic, output in self.outputs.items()},
            [(bits(v.params), bits(v.trainer), told(v.numbers)) for v in self.meta.versions],
            dict(self.store.adoptions()),
        )


def lines_of_episodes() -> list[bytes]:
    """The labels that a worker leaves on a log of 60 events."""
    world = World(stream(1, 60))
    worker = world.program(20).worker
    while worker.step() is not None:
        pass
    return world.outputs["episodes"].lines


def told(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """What a version says of how far it goes; but not where that lies in outputs, which may hold repeats."""
    since = numbers["window"][1]
    return {**{name: value for name, value in numbers.items() if name != "position"}, "window": since}


def bits(tensors: Any) -> dict[str, bytes]:
    """Tensors by name, as bytes."""
    named: dict[str, Tensor] = dict(tensors)
    return {name: value.numpy().tobytes() for name, value in named.items()}


class Process:
    """A program in a thread of its own that runs only while it has the turn."""

    def __init__(self, world: World, batch: int, back: int = 0) -> None:
        self.world = world
        self.program = world.program(batch, back)
        self.is_over = False
        self._dies = False
        self._failure: BaseException | None = None
        self._until, self._left, self._longest = "", 0, 0
        self._turn, self._waits = Semaphore(0), Semaphore(0)
        Thread(target=self._live, daemon=True).start()

    def run(self, until: str = "the end", times: int = 1, longest: int = 10**9) -> None:
        """Let it run until just before its next such effect, or to its end."""
        self._until, self._left, self._longest = until, times, longest
        self._hand_over()

    def die(self) -> None:
        """End it where it waits."""
        self._dies = True
        self._hand_over()

    def _hand_over(self) -> None:
        if self.is_over:
            return
        self.world.hook = self._before
        self._turn.release()
        self._waits.acquire()
        if self._failure is not None:
            raise self._failure

    def _live(self) -> None:
        self._turn.acquire()
        try:
            if not self._dies:
                for _ in steps(self.program):
                    pass
        except Crash:
            pass
        except BaseException as failure:
            self._failure = failure
        self.is_over = True
        self._waits.release()

    def _before(self, effect: str) -> None:
        self._longest -= 1
        self._left -= effect == self._until
        if self._left > 0 and self._longest > 0:
            return
        self._waits.release()
        self._turn.acquire()
        if self._dies:
            raise Crash(effect)


def uninterrupted(records: Sequence[Record], batch: int = 5, is_late: bool = False) -> Left:
    """What one process leaves that nothing happens to."""
    world = World(records, is_late)
    for _ in steps(world.program(batch)):
        pass
    return world.left()


def scheduled(
    records: Sequence[Record],
    turns: Sequence[Turn],
    zombies: Sequence[int] = (),
    batch: int = 5,
    is_late: bool = False,
) -> Left:
    """What is left after these turns, once the zombies have run to their ends, and all others have died.

    A worker starts with its first turn. Where a turn did not end it, it holds on to whatever it had read. A
    last process begins at the committed position: nobody folds again what it may wrongly pass over.
    """
    world = World(records, is_late)
    workers: dict[int, Process] = {}
    try:
        for turn in turns:
            worker = workers.get(turn.worker) or Process(world, turn.batch, turn.back)
            workers[turn.worker] = worker
            worker.run(turn.until, turn.times, LONGEST_TURN)
            if turn.dies:
                workers.pop(turn.worker).die()
        for number in zombies:
            if number in workers:
                workers[number].run()
    finally:
        for worker in workers.values():
            worker.die()
    world.hook = no_crash
    for _ in steps(world.program(batch)):
        pass
    return world.left()


def effects_of(records: Sequence[Record], batch: int, is_late: bool = False) -> list[str]:
    """Every effect of an uninterrupted run, in order."""
    world, effects = World(records, is_late), list[str]()
    world.hook = effects.append
    for _ in steps(world.program(batch)):
        pass
    return effects


def dying_before(records: Sequence[Record], nth: int, batch: int, is_late: bool = False) -> Left:
    """What is left where the first process dies just before its nth effect, from 0, and a second goes on."""
    world = World(records, is_late)
    countdown = iter(range(nth, -1, -1))

    def before(effect: str) -> None:
        if next(countdown) == 0:
            raise Crash(effect)

    world.hook = before
    try:
        for _ in steps(world.program(batch)):
            pass
    except Crash:
        pass
    world.hook = no_crash
    for _ in steps(world.program(batch)):
        pass
    return world.left()


def observation(task: Any, id: Any, time: Any, a: Any = 0.5, b: Any = 1.0) -> Record:
    return Record(0, Kind.OBSERVATION, task, id, time, None, {"a": a, "b": b})


def label(task: Any, id: Any, time: Any, value: Any, fields: dict[str, Any] | None = None) -> Record:
    return Record(0, Kind.LABEL, task, id, time, value, fields)


def null_value(task: Any) -> Record:
    """A message without a value, whose key names a task."""
    return Record(0, Kind.OBSERVATION, task, None, None, raw=b"", fault=NULL_VALUE, key=str(task).encode())


def stream(seed: int, length: int, tasks: int = 3, wait: int = 0) -> list[Record]:
    """A random log: labels delayed, repeated and corrected, bad records; no label among the first `wait`."""
    rng = np.random.default_rng(seed)
    records: list[Record] = []
    seen: list[tuple[str, str]] = []
    for n in range(length):
        task, id, time = f"task {rng.integers(tasks)}", f"e{n}", float(2 * n)
        what = rng.choice(["observe", "label", "again", "bad"], p=[0.45, 0.45, 0.07, 0.03])
        if what == "bad":
            records.append(observation(task, id, "soon"))
        elif what == "again" and seen:
            records.append(records_again(seen[rng.integers(len(seen))], time))
        elif what == "label" and seen and n >= wait:
            old = seen[-1 - int(rng.integers(min(6, len(seen))))]
            records.append(label(*old, time, str(rng.choice(["x", "y"]))))
        else:
            seen.append((task, id))
            records.append(observation(task, id, time, *map(float, rng.normal(size=2))))
    return records


def records_again(old: tuple[str, str], time: float) -> Record:
    """A client that sends an observation a second time."""
    return observation(*old, time)

"""Drives `Engine.fold` in tests: small specs, events as plain values, sequences of them, folds in cuts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache, partial
from hashlib import blake2b
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from hypothesis import strategies as st

from engine.detectors.detectors import Never, PageHinkley, Periodic
from engine.detectors.river import River
from engine.features.columns import Category, Numeric
from engine.features.encoder import Features
from engine.features.history import History
from engine.learners.gradient import GradientLearner
from engine.networks.mlp import mlp
from engine.networks.tabular import tabular
from engine.problem import InnerLoop, Problem
from engine.stream.events import EventBatch
from engine.stream.fold import Engine
from engine.stream.in_progress import Folded
from engine.stream.spec import Memory, Policy, StreamSpec
from engine.stream.table import TaskTable
from engine.targets import Classification, Regression
from engine.types import Kind, Meta, Outcome, Outcomes
from tests.varied import varied


class Source(NamedTuple):
    """Where the events of a topic come from."""

    incarnation: int
    partition: int


ORIGIN = Source(incarnation=7, partition=0)

SMALL = StreamSpec(
    Problem(
        Features((Numeric("a"), Numeric("b"))),
        Classification(("x", "y", "z")),
        network=partial(mlp, hidden=(8,)),
        inner=InnerLoop(steps=2),
        support=4,
    ),
    memory=Memory(balanced=True, pending=3, ttl_s=50.0),
    policy=Policy(every=4, recent=2, refractory=3),
    detector=PageHinkley(min_instances=3, delta=0.0, threshold=0.15),
)
"""So small that a short sequence fills, overflows, expires, adapts and alarms."""


OF_A_CATEGORY = Features((Numeric("a", optional=True), Category("b", buckets=4, embedding=2)))

SPECS = {
    "balanced": SMALL,
    "unbalanced": varied(
        SMALL,
        features=Features((Numeric("a"), Category("b", buckets=4, embedding=2))),
        memory=replace(SMALL.memory, balanced=False),
        adapts="all",
    ),
    "regression": varied(SMALL, target=Regression(-1.0, 2.0), adapts="head", detector=Periodic(5)),
    "river": varied(
        SMALL,
        support=9,
        detector=River("PageHinkley", (("min_instances", 3), ("threshold", 0.15), ("mode", "up")), window=12),
    ),
    "fixed share": varied(SMALL, detector=Never(), share=0.02, policy=Policy(every=3), adapts="head"),
    "two buckets": varied(SMALL, adapts="all", support=12, memory=Memory(pending=3, ttl_s=50.0)),
    "history": varied(
        SMALL,
        features=OF_A_CATEGORY,
        history=History(by=("b",), numbers=("a",), slots=2),
        policy=Policy(every=3, recent=2, refractory=3),
    ),
    "other layers": varied(SMALL, network=partial(tabular, width=8, blocks=1)),
    "wide": varied(SMALL, features=OF_A_CATEGORY, wide=True, adapts="head"),
    "regression with history": varied(
        SMALL,
        features=OF_A_CATEGORY,
        target=Regression(-1.0, 2.0),
        history=History(by=("b",), numbers=("a",), slots=3),
        detector=PageHinkley(min_instances=3, delta=0.0, threshold=1.0),
    ),
    "auto rate": varied(
        SMALL,
        features=OF_A_CATEGORY,
        history=History(),
        wide=True,
        inner=InnerLoop(steps=2, lr="auto"),
    ),
}


@cache
def engine_for(name: str) -> Engine:
    """One engine a spec, so that its recordings are made once."""
    return Engine(SPECS[name])


@cache
def engine_by_tensors(name: str) -> Engine:
    """The same, adapting by tensors alone: what is compiled of the inner loop is no Python."""
    return Engine(SPECS[name], GradientLearner(SPECS[name].problem))


@cache
def theta(name: str, version: int) -> Meta:
    """Version `version` of theta, 0 for none; each with an initialization, statistics and a prior of its own."""
    if not version:
        return Meta(0, {})
    rng, params = np.random.default_rng(version), engine_for(name).learner.init(version)
    drawn: dict[str, Any] = {
        "0.label_rate": rng.dirichlet(np.ones(3)),
        "0.label_mean": rng.uniform(-0.5, 1.0),
        "0.label_std": rng.uniform(0.3, 3.0),
        "lr": rng.uniform(0.02, 0.5),
    }
    params |= {key: torch.tensor(drawn[key], dtype=torch.float32) for key in drawn if key in params}
    for key in engine_for(name).learner.learned if SPECS[name].problem.wide else ():  # which begin at zero
        params[key] = params[key] + torch.from_numpy(rng.normal(0.0, 0.3, params[key].shape)).float()
    return Meta(version, params, tuple(rng.dirichlet(np.ones(5)).tolist()))


class Event(NamedTuple):
    """One event of a sequence, before it has an offset."""

    kind: Kind
    id: int
    time_s: float = 0.0
    x: tuple[float, ...] | None = None
    y: float = 0.0
    task: int = 0
    topic: int = 0


def observation(id: int, time_s: float = 0.0, x: tuple[float, ...] = (0.5, 1.0), task: int = 0) -> Event:
    return Event(Kind.OBSERVATION, id, time_s, x, task=task)


def label(id: int, y: float, time_s: float = 0.0, x: tuple[float, ...] | None = None, task: int = 0) -> Event:
    return Event(Kind.LABEL, id, time_s, x, y, task)


def batch_of(
    events: Sequence[Event],
    offset: int = 0,
    rows: dict[int, int] | None = None,
    width: int = 2,
    source: tuple[Source, ...] = (ORIGIN,),
) -> EventBatch:
    """Events as a batch whose offsets start at `offset`; `rows` says where in the table each task is."""
    x = np.zeros((len(events), width), np.float32)
    for n, event in enumerate(events):
        x[n] = event.x or 0.0
    return EventBatch(
        row=np.array([rows[e.task] if rows else e.task for e in events], np.int64),
        kind=np.array([e.kind for e in events], np.uint8),
        id=np.array([e.id for e in events], np.uint64),
        time_s=np.array([e.time_s for e in events], np.float64),
        x=x,
        has_x=np.array([e.x is not None for e in events], np.bool_),
        y=np.array([e.y for e in events], np.float32),
        topic=np.array([e.topic for e in events], np.int64),
        offset=np.arange(offset, offset + len(events)),
        partition=np.array([source[e.topic].partition for e in events], np.int64),
        incarnation=np.array([source[e.topic].incarnation for e in events], np.uint64),
    )


@dataclass
class Driven:
    """A fold of a whole sequence in some cuts: the final table, and what became of every event."""

    engine: Engine
    table: TaskTable
    outcomes: list[Outcomes] = field(default_factory=list)
    episodes: list[tuple[Any, ...]] = field(default_factory=list)
    adaptations: int = 0
    not_finite: int = 0
    inner_loops: int = 0
    folded: int = 0

    def fold(self, events: Sequence[Event], meta: Meta) -> Folded:
        """Fold one batch the way a worker does: load the touched rows, fold, write them back."""
        tasks = sorted({event.task for event in events})
        rows = {task: row for row, task in enumerate(tasks)}
        index = np.array(tasks, np.int64)
        result = self.engine.fold(self.table.take(index), batch_of(events, self.folded, rows), meta)
        self.table.rows[index] = result.states.rows
        self.outcomes.append(result.outcomes)
        for e in result.episodes:
            arrays = (e.support_x, e.support_y, e.support_weight, e.query_x, e.query_y)
            self.episodes.append((tasks[e.row], e.labels, self.folded + e.event, *map(np.copy, arrays)))
        self.folded += len(events)
        self.adaptations += result.adaptations
        self.not_finite += result.not_finite
        self.inner_loops += len(result.inner_loops)
        return result

    def outcome(self, name: str) -> Any:
        """One column of the outcomes of every event so far."""
        return np.concatenate([getattr(outcomes, name) for outcomes in self.outcomes])

    @property
    def codes(self) -> list[Outcome]:
        return [Outcome(code) for code in self.outcome("code")]

    def same_bits(self, other: Driven) -> list[str]:
        """Names of the row fields and outcome columns that differ in any bit."""
        rows = [
            name
            for name in self.table.rows.dtype.names or ()
            if self.table.rows[name].tobytes() != other.table.rows[name].tobytes()
        ]
        columns = [
            f.name
            for f in fields(Outcomes)
            if self.outcome(f.name).tobytes() != other.outcome(f.name).tobytes()
        ]
        mine, others = sorted_episodes(self.episodes), sorted_episodes(other.episodes)
        return rows + columns + (["episodes"] if mine != others else [])


def sorted_episodes(episodes: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Episodes in log order, arrays as bytes, so that they can be compared."""
    by_event = sorted(episodes, key=lambda episode: episode[2])
    return [tuple(v.tobytes() if isinstance(v, np.ndarray) else v for v in episode) for episode in by_event]


def drive(name: str | Engine, tasks: int = 1) -> Driven:
    """Tasks never seen, ready to fold."""
    engine = engine_for(name) if isinstance(name, str) else name
    return Driven(engine, TaskTable.empty(engine.layout, [f"task-{u}" for u in range(tasks)]))


def fold_in_cuts(
    name: str,
    events: Sequence[Event],
    cuts: Sequence[int],
    versions: Sequence[tuple[int, int]],
    tasks: int,
    engine: Engine | None = None,
) -> Driven:
    """Fold a sequence cut at `cuts`; `versions` are pairs (position, version of theta from there on)."""
    driven = drive(engine or name, tasks)
    edges = sorted({0, len(events), *(min(c, len(events)) for c in cuts)})
    edges = sorted({*edges, *(position for position, _ in versions if position < len(events))})
    for start, stop in pairwise(edges):
        version = max((p, v) for p, v in versions if p <= start)[1]
        driven.fold(events[start:stop], theta(name, version))
    return driven


Action = tuple[str, int, int, float, float, float]
"""What happens, to which task, to which of its ids counted back, seconds passed, a feature, a label."""

actions = st.tuples(
    st.sampled_from(["observe"] * 4 + ["label"] * 5 + ["label with x", "observe again", "label of nothing"]),
    st.integers(0, 2),
    st.integers(0, 5),
    st.sampled_from([0.0, 1.0, 1.0, 1.0, -3.0, 20.0, 60.0]),
    st.sampled_from([-2.0, 0.0, 0.3, 1.0, 3.0]),
    st.sampled_from([0.0, 1.0, 2.0]),
)


def sequence(script: Sequence[Action], name: str) -> list[Event]:
    """A script as events: labels mostly meet a pending observation, else repeat, correct, or come late."""
    regression = isinstance(SPECS[name].problem.target, Regression)
    optional = getattr(SPECS[name].problem.features.columns[0], "optional", False)
    events: list[Event] = []
    used: dict[int, list[int]] = {}
    clock = 100.0
    for n, (what, task, back, passed, feature, y) in enumerate(script):
        clock += passed
        ids = used.setdefault(task, [])
        missing = optional and 0.0 < feature < 1.0
        x = (math.nan if missing else feature, float(back % 4))
        known = ids[-1 - back % len(ids)] if ids else 9000 + n
        target = y / 2 - 0.5 if regression else y
        if what == "observe":
            ids.append(1 + n)
            events.append(observation(1 + n, clock, x, task))
        elif what == "observe again":
            events.append(observation(known, clock, x, task))
        elif what == "label":
            events.append(label(known, target, clock, None, task))
        elif what == "label with x":
            events.append(label(known, target, clock, x, task))
        else:
            events.append(label(7000 + back, target, clock, x if back > 2 else None, task))
    return events


def long_stream(seed: int, length: int, tasks: int, name: str) -> list[Event]:
    """A random stream in which every kind of outcome occurs, with long delays for some of the labels."""
    rng = np.random.default_rng(seed)
    kinds = ["observe"] * 8 + ["label"] * 8 + ["label with x", "observe again", "label of nothing"]
    script = [
        (
            kinds[rng.integers(len(kinds))],
            int(rng.integers(tasks)),
            int(rng.integers(6)),
            float(rng.choice([0, 1, 1, 1, 1, -3, 20])) / tasks,
            float(rng.normal()),
            float(rng.integers(3)),
        )
        for _ in range(length)
    ]
    return sequence(script, name)


def moved_in_time(events: Sequence[Event], by_s: float) -> list[Event]:
    """The same events, all of them so much later, or earlier."""
    return [event._replace(time_s=event.time_s + by_s) for event in events]


def digest(driven: Driven) -> str:
    """Hash of every bit that a fold leaves: rows, outcomes, episodes."""
    columns = [driven.outcome(f.name).tobytes() for f in fields(Outcomes)]
    whole = driven.table.rows.tobytes() + b"".join(columns) + repr(sorted_episodes(driven.episodes)).encode()
    return blake2b(whole).hexdigest()

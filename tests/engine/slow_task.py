"""One task's row as plain Python lists: the slow reference that the fold is held against.

Written from the documentation, not from the code. The drift detector is not part of it: whether a label
raised the alarm is told.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from engine.stream.spec import StreamSpec
from engine.targets import Regression
from engine.types import Kind, Outcome
from tests.engine.driving import Event
from tests.engine.slow_history import SlowHistory


class Example(NamedTuple):
    seq: int
    id: int
    x: tuple[float, ...]
    """With the task's past, where the spec keeps one."""
    y: float


class Waiting(NamedTuple):
    order: int
    id: int
    time_s: float
    x: tuple[float, ...]


@dataclass
class Adapted:
    """What the last adaptation read."""

    support: list[Example] = field(default_factory=list)
    counts: Counter[float] = field(default_factory=Counter)


class Step(NamedTuple):
    """What one event is expected to do."""

    code: Outcome
    expired: int
    adapts: bool
    episode: tuple[list[Example], list[float], list[Example]] | None
    """Support, its weights, query."""
    learned_x: tuple[float, ...] | None
    """Features that came with a label that was learned from."""


@dataclass
class SlowTask:
    spec: StreamSpec
    clock_s: float = -math.inf
    seq: int = 0
    predicted: int = 0
    slots: list[Waiting | None] = field(default_factory=list)
    resolved: list[list[float | None]] = field(default_factory=list)
    """The last 64: [id, label or None where it expired]."""
    support: list[Example] = field(default_factory=list)
    since: list[Example] = field(default_factory=list)
    """Every label since the last adaptation, as it was last corrected."""
    counts: Counter[float] = field(default_factory=Counter)
    forgotten: set[float | None] = field(default_factory=set)
    """Ids labelled before the window that the last alarm kept."""
    adapted: Adapted = field(default_factory=Adapted)

    def __post_init__(self) -> None:
        self.slots = [None] * self.spec.memory.pending
        self.history = SlowHistory(self.spec)

    @property
    def balanced(self) -> bool:
        return self.spec.memory.balanced and not isinstance(self.spec.problem.target, Regression)

    def with_past(self, event: Event) -> tuple[float, ...]:
        assert event.x is not None
        return (*event.x, *(self.history.numbers(event.x, event.time_s) if self.spec.problem.history else ()))

    def step(self, event: Event, alarm: bool) -> Step:
        self.clock_s = max(self.clock_s, event.time_s)
        expired = 0
        for place, waiting in enumerate(self.slots):
            if waiting and waiting.time_s + self.spec.memory.ttl_s < self.clock_s:
                self.resolve(waiting.id, None)
                self.slots[place] = None
                expired += 1
        if event.kind == Kind.OBSERVATION:
            code, pushed = self.observe(event)
            return Step(code, expired + pushed, False, None, None)
        before_label, known = self.seq, len(self.history.labels)
        code = self.learn(event)
        learned = self.support[-1].x if len(self.history.labels) > known else None
        if alarm:
            self.support = [e for e in self.support if e.seq > self.seq - self.spec.policy.recent]
            self.counts = Counter(e.y for e in self.support)
            self.forgotten |= {past[0] for past in self.resolved} - {e.id for e in self.support}
        adapts = alarm or (self.seq > before_label and self.scheduled())
        return Step(code, expired, adapts, self.adapt() if adapts else None, learned)

    def observe(self, event: Event) -> tuple[Outcome, int]:
        waits = any(w and w.id == event.id for w in self.slots)
        if waits or any(past[0] == event.id for past in self.resolved):
            return Outcome.REPEATED_OBSERVATION, 0
        pushed = 0
        if None not in self.slots:
            oldest = min((w for w in self.slots if w), key=lambda w: w.order)
            self.resolve(oldest.id, None)
            self.slots[self.slots.index(oldest)] = None
            pushed = 1
        self.predicted += 1
        place = self.slots.index(None)
        self.slots[place] = Waiting(self.predicted, event.id, event.time_s, self.with_past(event))
        assert event.x is not None
        self.history.observed(event.x, event.time_s)
        return Outcome.PREDICTED, pushed

    def learn(self, event: Event) -> Outcome:
        for place, waiting in enumerate(self.slots):
            if waiting and waiting.id == event.id:
                self.slots[place] = None
                self.resolve(event.id, event.y)
                self.take_in(event, waiting.x)
                return Outcome.SCORED
        past = next((past for past in self.resolved if past[0] == event.id), None)
        if past and past[1] is not None:
            if past[1] == event.y:
                return Outcome.REPEATED_LABEL
            self.correct(event, past[1])
            past[1] = event.y
            return Outcome.CORRECTED
        if event.x is None:
            return Outcome.LATE if past else Outcome.ORPHAN
        if past:
            past[1] = event.y
            self.forgotten.discard(event.id)
        else:
            self.resolve(event.id, event.y)
        self.take_in(event, self.with_past(event))
        return Outcome.EXAMPLE

    def take_in(self, event: Event, x: tuple[float, ...]) -> None:
        self.history.labelled(event.id, x, event.y, event.time_s)
        self.insert(event.id, x, event.y)

    def correct(self, event: Event, old: float) -> None:
        self.history.corrected(event.id, event.y)
        if event.id in self.forgotten:
            return
        if self.counts[old] > 0:
            self.counts[old] -= 1
        example = next((e for e in self.support if e.id == event.id), None)
        if example:
            self.support.remove(example)
            self.insert(event.id, example.x, event.y)
        else:
            self.counts[event.y] += 1
            self.since = [e._replace(y=event.y) if e.id == event.id else e for e in self.since]

    def insert(self, id: int, x: tuple[float, ...], y: float) -> None:
        self.seq += 1
        if len(self.support) == self.spec.problem.support:
            often = Counter(e.y for e in self.support)
            often[y] += 1
            crowded = max(often[e.y] for e in self.support)
            leaves = [e for e in self.support if not self.balanced or often[e.y] == crowded]
            self.support.remove(leaves[0])
        self.support.append(Example(self.seq, id, x, y))
        self.since = [e for e in self.since if e.id != id] + [self.support[-1]]
        self.counts[y] += 1

    def resolve(self, id: int, y: float | None) -> None:
        self.resolved = [*self.resolved, [id, y]][-64:]
        self.forgotten.discard(id)  # an id that the last 64 no longer hold may come again

    def scheduled(self) -> bool:
        every = self.spec.policy.every
        return self.seq % every == 0 or (self.seq < every and self.seq in (1, 2, 4, 8))

    def adapt(self) -> tuple[list[Example], list[float], list[Example]] | None:
        read, judged, weights = self.adapted.support, self.since, self.weights(self.adapted)
        self.adapted, self.since = Adapted(list(self.support), Counter(self.counts)), []
        return (read, weights, judged) if judged else None

    def weights(self, adapted: Adapted) -> list[float]:
        """Each example's weight in the inner loss: its class's share of all labels, shared by its class."""
        if not self.balanced:
            return [1 / len(adapted.support) for _ in adapted.support]
        inside = Counter(e.y for e in adapted.support)
        raw = [adapted.counts[e.y] / inside[e.y] for e in adapted.support]
        return [w / sum(raw) for w in raw] if sum(raw) else raw

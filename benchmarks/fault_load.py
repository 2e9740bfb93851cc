"""The load of the fault benchmark, drawn from a seed: observations, delayed labels, and messages to be refused.

Who sends keeps a ledger of what the brokers acknowledged: what a deployment must have made of it can be counted
without asking the deployment.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from threading import Event, Thread
from time import monotonic

import numpy as np

from benchmarks import fault_refused
from streams.logs.kafka.outputs import KafkaOutputs, Sent

TASKS = (
    *(f"user {n}" for n in range(37) if n != 33),
    "line\nbreak\r\n", "{brace}s", "a:b/c%20*?", "\N{SNOWMAN}\x00 ~", "x" * 65_536,
)  # fmt: skip
"""Hostile ids among them, the longest that is allowed as well. User 33 would be held out: its labels would teach
nobody, and could not be counted."""
RARE = 0.01
"""How often the longest comes, so that it does not fill the topics."""
MALFORMED, ASTRAY, FUTURE, NULL, FORGED = 0.05, 0.01, 0.01, 0.01, 0.01
"""Of what is no event to be folded, how much there is for each observation."""
LONGEST_DELAY_S = 60.0
"""In event time; a pending observation expires before that, so some labels are late."""
TICK_S = 0.05
AT_ONCE = 2048

Count = Counter[tuple[str, str]]
"""Events by task and kind: ("user 1", "label")."""


@dataclass(frozen=True)
class Drawn:
    """One message to send, and what is to become of it; nothing at all of a line of episodes that no worker wrote."""

    message: Sent
    counted: tuple[str, str] | None = None
    """The task and kind that it is counted under."""
    reason: str = ""
    """Of its dead letter."""

    @property
    def forged(self) -> bool:
        """Whether it is a line of episodes."""
        return self.counted is None and not self.reason


def traffic(seed: int) -> Iterator[Drawn]:
    """An endless stream: about as many labels as observations, and messages that are to be refused.

    Some labels are repeated, corrected, late or orphaned.
    """
    rng = np.random.default_rng(seed)
    share = np.array([1.0] * (len(TASKS) - 1) + [len(TASKS) * RARE])
    share /= share.sum()
    labels: list[tuple[float, int, str, str]] = []
    order, numbers = count(), count()
    for n in count():
        now = 0.25 * n
        yield from _refused(rng, numbers, now)
        while labels and labels[0][0] <= now:
            due, _, task, identity = heapq.heappop(labels)
            yield _label(rng, task, identity, due)
        task, identity = TASKS[rng.choice(len(TASKS), p=share)], f"o{n}"
        yield _observation(rng, task, identity, now)
        for _ in range(rng.choice([0, 1, 2], p=[0.05, 0.9, 0.05])):
            known = now + float(rng.uniform(0, LONGEST_DELAY_S))
            about = identity if rng.random() < 0.98 else f"orphan {n}"
            heapq.heappush(labels, (known, next(order), task, about))


def _refused(rng: np.random.Generator, numbers: Iterator[int], now: float) -> Iterator[Drawn]:
    """Some messages of which no row learns; each has a number of its own."""
    drawn = rng.random(5)
    if drawn[0] < MALFORMED:
        yield _letter(fault_refused.malformed(rng, next(numbers)))
    if drawn[1] < ASTRAY:
        yield _letter(fault_refused.astray(rng, next(numbers), TASKS, now))
    if drawn[2] < FUTURE:
        yield _letter(fault_refused.of_the_future(rng, next(numbers), TASKS))
    if drawn[3] < NULL:
        yield _letter(fault_refused.null(rng, next(numbers), TASKS))
    if drawn[4] < FORGED:
        yield Drawn(fault_refused.forged(next(numbers)))


def _letter(refused: tuple[Sent, str]) -> Drawn:
    message, reason = refused
    return Drawn(message, reason=reason)


def _observation(rng: np.random.Generator, task: str, identity: str, time: float) -> Drawn:
    a, b = rng.normal(size=2).round(3).tolist()
    said = {"task": task, "id": identity, "time": time, "features": {"a": a, "b": b}}
    return Drawn(Sent(task.encode(), json.dumps(said).encode()), (task, "observation"))


def _label(rng: np.random.Generator, task: str, identity: str, time: float) -> Drawn:
    said = {"task": task, "id": identity, "time": time, "label": str(rng.choice(["x", "y"], p=[0.6, 0.4]))}
    return Drawn(Sent(task.encode(), json.dumps(said).encode()), (task, "label"))


@dataclass(frozen=True)
class Ledger:
    """What the brokers acknowledged."""

    events: Count = field(default_factory=Counter)
    refused: list[tuple[Sent, str]] = field(default_factory=list)
    """With the reason of each dead letter."""
    forged: list[Sent] = field(default_factory=list)

    def add(self, acknowledged: list[Drawn]) -> None:
        """Count what was acknowledged."""
        self.events.update([drawn.counted for drawn in acknowledged if drawn.counted])
        self.refused.extend((drawn.message, drawn.reason) for drawn in acknowledged if drawn.reason)
        self.forged.extend(drawn.message for drawn in acknowledged if drawn.forged)


class Load:
    """Sends traffic at a steady rate, on a thread of its own, from `with` until the end of the block.

    After a stall it catches up. Nothing is given up that a broker may have taken: an error ends the load, and
    the block. Events go to one topic, lines of episodes that no worker wrote to another.
    """

    def __init__(self, producer: KafkaOutputs, events: str, episodes: str, seed: int, rate: float) -> None:
        self.ledger = Ledger()
        self._producer, self._events, self._episodes = producer, events, episodes
        self._traffic, self._rate = traffic(seed), rate
        self._stopping = Event()
        self._failure: list[Exception] = []
        self._thread = Thread(target=self._run, name="load")

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def stop(self) -> None:
        """Send nothing more; the ledger is complete then."""
        self._stopping.set()
        self._thread.join()

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._producer.close()
        for failure in self._failure:
            raise failure

    def _run(self) -> None:
        began, sent = monotonic(), 0
        try:
            while not self._stopping.wait(TICK_S):
                due = int(self._rate * (monotonic() - began)) - sent
                portion = list(islice(self._traffic, min(due, AT_ONCE)))
                self._send(portion)
                self.ledger.add(portion)
                sent += len(portion)
        except Exception as error:  # raised again where the load is ended
            self._failure.append(error)

    def _send(self, portion: Sequence[Drawn]) -> None:
        """Send messages, and wait until all are acknowledged."""
        self._producer.send(self._events, [drawn.message for drawn in portion if not drawn.forged])
        self._producer.send(self._episodes, [drawn.message for drawn in portion if drawn.forged])
        self._producer.sync()

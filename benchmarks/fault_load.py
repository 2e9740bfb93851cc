"""The load of the fault benchmark: observations, delayed labels and malformed messages, drawn from a seed.

Who sends keeps a ledger of what the broker acknowledged: what a deployment must have made of it can be counted
without asking the deployment.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count, islice
from threading import Event, Thread
from time import monotonic
from typing import Any

import numpy as np

from streams.logs.kafka_outputs import KafkaOutputs, Sent

TASKS = (
    *(f"user {n}" for n in range(36)),
    "line\nbreak\r\n", "{brace}s", "a:b/c%20*?", "\N{SNOWMAN}\x00 ~", "x" * 65_536,
)  # fmt: skip
"""Hostile ids among them, the longest that is allowed as well."""
RARE = 0.01
"""How often the longest comes, so that it does not fill the topics."""
MALFORMED = 0.05
LONGEST_DELAY_S = 60.0
"""In event time; a pending observation expires before that, so some labels are late."""
TICK_S = 0.05
AT_ONCE = 2048

Count = Counter[tuple[str, str]]
"""Events by task and kind: ("user 1", "label")."""


@dataclass(frozen=True)
class Drawn:
    """One message to send, and the task and kind that it is to be counted under; None where it is malformed."""

    message: Sent
    counted: tuple[str, str] | None


def traffic(seed: int) -> Iterator[Drawn]:
    """An endless stream: about as many labels as observations, some repeated, corrected, late or orphaned."""
    rng = np.random.default_rng(seed)
    share = np.array([1.0] * (len(TASKS) - 1) + [len(TASKS) * RARE])
    share /= share.sum()
    labels: list[tuple[float, int, str, str]] = []
    order, numbers = count(), count()
    for n in count():
        now = 0.25 * n
        if rng.random() < MALFORMED:
            yield Drawn(malformed(rng, next(numbers)), None)
        while labels and labels[0][0] <= now:
            due, _, task, identity = heapq.heappop(labels)
            yield _label(rng, task, identity, due)
        task, identity = TASKS[rng.choice(len(TASKS), p=share)], f"o{n}"
        yield _observation(rng, task, identity, now)
        for _ in range(rng.choice([0, 1, 2], p=[0.05, 0.9, 0.05])):
            known = now + float(rng.uniform(0, LONGEST_DELAY_S))
            about = identity if rng.random() < 0.98 else f"orphan {n}"
            heapq.heappush(labels, (known, next(order), task, about))


def _observation(rng: np.random.Generator, task: str, identity: str, time: float) -> Drawn:
    a, b = rng.normal(size=2).round(3).tolist()
    said = {"task": task, "id": identity, "time": time, "features": {"a": a, "b": b}}
    return Drawn(Sent(task.encode(), json.dumps(said).encode()), (task, "observation"))


def _label(rng: np.random.Generator, task: str, identity: str, time: float) -> Drawn:
    said = {"task": task, "id": identity, "time": time, "label": str(rng.choice(["x", "y"], p=[0.6, 0.4]))}
    return Drawn(Sent(task.encode(), json.dumps(said).encode()), (task, "label"))


def _event(**changed: Any) -> bytes:
    """A sound observation with some members changed; None takes one away."""
    said = {"task": "user 1", "id": "m", "time": 1.0, "features": {"a": 1.0, "b": 2.0}} | changed
    return json.dumps({name: value for name, value in said.items() if value is not None}).encode()


KINDS: dict[str, bytes | None] = {
    "nothing": None,
    "empty": b"",
    "not JSON": b'{"task": "user 1", "id"',
    "not UTF-8": b'{"task": "user \xff\xfe"}',
    "binary": bytes(range(256)),
    "a list": b"[1, 2, 3]",
    "a number": b"17",
    "nested too deep": b"[" * 5_000,
    "NaN as JSON does not have it": b'{"task": "user 1", "id": "m", "time": NaN}',
    "a lone surrogate": b'{"task": "\\ud800", "id": "m", "time": 1, "features": {"a": 1, "b": 2}}',
    "a feature that is NaN": _event(features={"a": "nan", "b": 1.0}),
    "a feature that is infinite": _event(features={"a": "inf", "b": 1.0}),
    "a feature of another type": _event(features={"a": [1], "b": {"c": 2}}),
    "a feature of much text": _event(features={"a": "z" * 100_000, "b": 1.0}),
    "a missing feature": _event(features={"a": 1.0}),
    "features that are none": _event(features="a and b"),
    "no features": _event(features=None),
    "no id": _event(id=None),
    "an empty id": _event(id=""),
    "an id of another type": _event(id={"a": 1}),
    "no time": _event(time=None),
    "a time that is true": _event(time=True),
    "a time that is no number": _event(time="nan"),
    "milliseconds": _event(time=1.7e12),
    "an empty task": _event(task=""),
    "a task of another type": _event(task=[{}]),
    "a task that is too long": _event(task="\n{}" * 22_000),
    "an unknown class": _event(label="z", features=None),
    "a label of another type": _event(label={"x": 1}, features=None),
    "much text": b"no JSON " * 20_000,
}
"""Values that are no events, whatever their key and headers."""
KEYS = (b"user 1", b"", b"\xff\x00\xfe", b"key\n{}", b"k" * 65_536)


def malformed(rng: np.random.Generator, number: int) -> Sent:
    """A message that is no event, of one kind after the other, with a number of its own in the headers."""
    value = list(KINDS.values())[number % len(KINDS)]
    key = None if value and rng.random() < 0.2 else KEYS[rng.choice(len(KEYS), p=[0.4, 0.2, 0.2, 0.19, 0.01])]
    headers = [("number", str(number).encode()), ("binary", bytes([0, 255])), ("number", b"")]
    return Sent(key, value, headers[: int(rng.integers(1, 4))])


@dataclass(frozen=True)
class Ledger:
    """What the broker acknowledged."""

    events: Count = field(default_factory=Counter)
    malformed: list[Sent] = field(default_factory=list)

    def add(self, acknowledged: list[Drawn]) -> None:
        """Count what was acknowledged."""
        self.events.update([drawn.counted for drawn in acknowledged if drawn.counted])
        self.malformed.extend(drawn.message for drawn in acknowledged if drawn.counted is None)


class Load:
    """Sends traffic at a steady rate, on a thread of its own, from `with` until the end of the block.

    After a stall it catches up. Nothing is given up that a broker may have taken: an error ends the load, and
    the block.
    """

    def __init__(self, producer: KafkaOutputs, topic: str, seed: int, rate: float) -> None:
        self.ledger = Ledger()
        self._producer, self._topic, self._traffic, self._rate = producer, topic, traffic(seed), rate
        self._stopping = Event()
        self._failure: list[Exception] = []
        self._thread = Thread(target=self._run, name="load")

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        self._producer.close()
        for failure in self._failure:
            raise failure

    def _run(self) -> None:
        began, sent = monotonic(), 0
        send: Callable[[str, Any], None] = self._producer.send
        try:
            while not self._stopping.wait(TICK_S):
                due = int(self._rate * (monotonic() - began)) - sent
                portion = list(islice(self._traffic, min(due, AT_ONCE)))
                send(self._topic, [drawn.message for drawn in portion])
                self._producer.sync()
                self.ledger.add(portion)
                sent += len(portion)
        except Exception as error:  # raised again where the load is ended
            self._failure.append(error)

"""Messages of which no row may learn, and what is to become of each: a dead letter, of a reason that is known here.

The reasons are written down by hand, from the promises, so that what a deployment says can be held against them.
Into the topic of episodes come lines that no worker wrote: of those nothing is to become at all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from streams.logs.kafka.outputs import Sent

YEAR_2096_S = 3.98e9


class Refused(NamedTuple):
    """The value of a message that is no event, and the reason of its dead letter."""

    value: bytes | None
    reason: str


def event(**changed: Any) -> bytes:
    """A sound observation with some members changed; None takes one away."""
    said = {"task": "user 1", "id": "m", "time": 1.0, "features": {"a": 1.0, "b": 2.0}} | changed
    return json.dumps({name: value for name, value in said.items() if value is not None}).encode()


def learned(**changed: Any) -> bytes:
    """A line of episodes as a worker writes it, but for its features, with some members changed."""
    where = {"incarnation": "0000000000000001", "partition": 0, "offset": 0}
    said = {"task": "user 1", "labels": 1, **where, "x": [1.0], "y": 0, "losses": None}
    return json.dumps(said | changed).encode()


KINDS: dict[str, Refused] = {
    "nothing": Refused(None, "null_value"),
    "empty": Refused(b"", "malformed"),
    "not JSON": Refused(b'{"task": "user 1", "id"', "malformed"),
    "not UTF-8": Refused(b'{"task": "user \xff\xfe"}', "malformed"),
    "binary": Refused(bytes(range(256)), "malformed"),
    "a list": Refused(b"[1, 2, 3]", "malformed"),
    "a number": Refused(b"17", "malformed"),
    "nested too deep": Refused(b"[" * 5_000, "malformed"),
    "NaN as JSON does not have it": Refused(b'{"task": "user 1", "id": "m", "time": NaN}', "malformed"),
    "a lone surrogate": Refused(
        b'{"task": "\\ud800", "id": "m", "time": 1, "features": {"a": 1, "b": 2}}', "malformed"
    ),
    "a feature that is NaN": Refused(event(features={"a": "nan", "b": 1.0}), "bad_feature"),
    "a feature that is infinite": Refused(event(features={"a": "inf", "b": 1.0}), "bad_feature"),
    "a feature of another type": Refused(event(features={"a": [1], "b": {"c": 2}}), "bad_feature"),
    "a feature of much text": Refused(event(features={"a": "z" * 100_000, "b": 1.0}), "bad_feature"),
    "a missing feature": Refused(event(features={"a": 1.0}), "bad_feature"),
    "features that are none": Refused(event(features="a and b"), "bad_feature"),
    "no features": Refused(event(features=None), "bad_feature"),
    "no id": Refused(event(id=None), "missing_id"),
    "an empty id": Refused(event(id=""), "missing_id"),
    "an id of another type": Refused(event(id={"a": 1}), "bad_id"),
    "no time": Refused(event(time=None), "bad_time"),
    "a time that is true": Refused(event(time=True), "bad_time"),
    "a time that is no number": Refused(event(time="nan"), "bad_time"),
    "milliseconds": Refused(event(time=1.7e12), "bad_time"),
    "an empty task": Refused(event(task=""), "missing_task"),
    "a task of another type": Refused(event(task=[{}]), "bad_task"),
    "a task that is too long": Refused(event(task="\n{}" * 22_000), "too_large"),
    "an unknown class": Refused(event(label="z", features=None), "unknown_class"),
    "a label of another type": Refused(event(label={"x": 1}, features=None), "bad_label"),
    "much text": Refused(b"no JSON " * 20_000, "malformed"),
}
"""Values that are no events, whatever their key and headers."""
KEYS = (b"user 1", b"", b"\xff\x00\xfe", b"key\n{}", b"k" * 65_536)

FORGED: dict[str, bytes | None] = {
    "nothing": None,
    "empty": b"",
    "not JSON": b'{"task": "user 1", "labels"',
    "binary": bytes(range(256)),
    "a list": b"[1, 2, 3]",
    "an event": event(),
    "features of another width": learned(),
    "a feature that is text": learned(x=["1.0"]),
    "a label that is text": learned(y="x"),
    "a label that is true": learned(y=True),
    "an empty task": learned(task=""),
    "no labels": learned(labels=0),
    "a negative offset": learned(offset=-1),
    "an offset beyond all": learned(offset=2**63),
    "a partition that is text": learned(partition="0"),
    "losses that are text": learned(losses="none"),
    "a support set that is a number": learned(support=1, query={"x": [[1.0]], "y": [0]}),
    "an empty support set": learned(support={"x": [], "y": [], "weight": []}, query={"x": [[1.0]], "y": [0]}),
}
"""Lines that no worker wrote, in the topic of episodes."""


def malformed(rng: np.random.Generator, number: int) -> tuple[Sent, str]:
    """A message that is no event, of one kind after the other, and the reason of its dead letter."""
    value, reason = list(KINDS.values())[number % len(KINDS)]
    key = None if value and rng.random() < 0.2 else KEYS[rng.choice(len(KEYS), p=[0.4, 0.2, 0.2, 0.19, 0.01])]
    headers = [("number", str(number).encode()), ("binary", bytes([0, 255])), ("number", b"")]
    return Sent(key, value, headers[: int(rng.integers(1, 4))]), reason


def forged(number: int) -> Sent:
    """A line of episodes that no worker wrote, of one kind after the other."""
    return Sent(b"forged %d" % number, list(FORGED.values())[number % len(FORGED)])


def astray(rng: np.random.Generator, number: int, tasks: Sequence[str], now: float) -> tuple[Sent, str]:
    """A sound event of one task under the key of another, or under none."""
    task, other = (tasks[n] for n in rng.choice(len(tasks), 2, replace=False))
    key = None if rng.random() < 0.2 else other.encode()
    return Sent(key, _sound(rng, task, number, now), _numbered(number)), "wrong_partition"


def of_the_future(rng: np.random.Generator, number: int, tasks: Sequence[str]) -> tuple[Sent, str]:
    """A sound event of a task, by a clock that runs decades ahead."""
    task = tasks[int(rng.integers(len(tasks)))]
    return Sent(task.encode(), _sound(rng, task, number, YEAR_2096_S + number), _numbered(number)), "bad_time"


def null(rng: np.random.Generator, number: int, tasks: Sequence[str]) -> tuple[Sent, str]:
    """A task's key without a value, as a topic that is compacted would have it."""
    return Sent(tasks[int(rng.integers(len(tasks)))].encode(), None, _numbered(number)), "null_value"


def _sound(rng: np.random.Generator, task: str, number: int, time: float) -> bytes:
    """An observation or a label."""
    if rng.random() < 0.5:
        return event(task=task, id=f"r{number}", time=time)
    return event(task=task, id=f"r{number}", time=time, features=None, label="x")


def _numbered(number: int) -> list[tuple[str, bytes]]:
    return [("number", str(number).encode())]

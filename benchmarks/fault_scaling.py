"""How long partitions stand still while workers join and leave under a steady load.

Measured in the topics themselves: an event is taken by the broker at one time, and the line that says what became
of it at another. A partition stands still from the later of its last line and its next event to its next line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from time import sleep, time

import numpy as np
import orjson

from benchmarks.fault_audit import audit, messages_of
from benchmarks.fault_deployment import end, load_of, served, staffed
from benchmarks.fault_processes import Crew
from benchmarks.fault_scene import Scene
from streams.assembly.deployed import Deployment
from streams.logs.kafka.reader import KafkaTopicReader

PARTITIONS = 12
WORKERS = (1, 4, 2, 4)
RATE = 300.0

Event = tuple[int, int]
"""Its partition and offset."""


def scale(directory: Path, hold_s: float, seed: int, client: str, apache: bool) -> dict[str, float]:
    """Let workers join and leave, each number of them for a while; how long partitions stood still, and the audit."""
    with (
        served(directory, client, apache, PARTITIONS) as servers,
        staffed(Crew(servers.config, directory), WORKERS[0]) as crew,
    ):
        load, rng = load_of(servers.deployment, seed, RATE), np.random.default_rng(seed)
        scene = Scene(servers, crew, load, rng)
        with load:
            sleep(hold_s)
            scene.wait_until_folded()
            since_s = time()
            for workers in WORKERS:
                scene.become(workers)
                sleep(hold_s)
            until_s = time()
        scene.wait_until_folded()
        scene.wait_until_learned()
        end(crew)
        return {**_paused(servers.deployment, since_s, until_s), **audit(servers.deployment, load.ledger)}


def _paused(deployment: Deployment, since_s: float, until_s: float) -> dict[str, float]:
    """Ages of the events that came in a span of time, and how long each partition stood still."""
    reader = KafkaTopicReader(deployment.connection, deployment.kafka.inputs[0])
    came = {
        (m.partition, m.offset): m.appended_s
        for m in messages_of(reader)
        if since_s <= m.appended_s < until_s
    }
    went = _answered(deployment, came)
    ages = [at - came[place] for place, at in went.items()]
    longest = {n: max(_pauses(n, came, went)) for n in sorted({partition for partition, _ in went})}
    return {
        "age_p50_s": float(np.quantile(ages, 0.5)),
        "age_p99_s": float(np.quantile(ages, 0.99)),
        "age_max_s": max(ages),
        "longest_pause_s": max(longest.values()),
        **{f"longest_pause_s.{n}": pause for n, pause in longest.items()},
    }


def _answered(deployment: Deployment, came: Mapping[Event, float]) -> dict[Event, float]:
    """When it was first said what became of each event."""
    went: dict[Event, float] = {}
    for topic in ("predictions", "scores"):
        for message in messages_of(deployment.reader(topic)):
            said = orjson.loads(message.value or b"{}")
            place = said["partition"], said["offset"]
            if place in came:
                went[place] = min(message.appended_s, went.get(place, message.appended_s))
    return went


def _pauses(partition: int, came: Mapping[Event, float], went: Mapping[Event, float]) -> Iterator[float]:
    """Of a partition, how long each line was waited for since the one before it, or since its event came."""
    lines = sorted((at, came[place]) for place, at in went.items() if place[0] == partition)
    before = 0.0
    for at, taken in lines:
        yield at - max(before, taken)
        before = at

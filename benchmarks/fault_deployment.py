"""The deployment of the fault benchmark: its settings, its topics, its load, its processes."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from benchmarks.fault_brokers import Brokers, brokers
from benchmarks.fault_load import Load
from benchmarks.fault_processes import Crew
from streams.assembly.deployed import Deployment
from streams.logs.kafka.kafka_python.producer import KafkaPythonProducer
from streams.logs.kafka.outputs import KafkaOutputs
from streams.logs.kafka.topics import create
from streams.settings.tree import load_settings
from streams.testing.servers import Server, redis_server

SMALL_TASKS = """
[[features]]
encoder = "numeric"
name = "a"

[[features]]
encoder = "numeric"
name = "b"

[target]
classes = ["x", "y"]

[model]
hidden = [8]

[inner]
steps = 1

[memory]
support = 4
pending = 3
ttl_s = 50.0

[policy]
every = 3
recent = 2
refractory = 3

[drift.options]
min_instances = 3
delta = 0.0
threshold = 0.15

[outer]
every = 64
batch = 16
lr = 0.05
support_rate = 0.7
"""
"""Tasks that adapt, alarm and expire often, as any configuration declares them."""

CONFIG = f"""
stream = "faults"
{SMALL_TASKS}
[run]
batch = 256

[kafka]
bootstrap = {{brokers}}
client = "{{client}}"
session_timeout_s = 6
delivery_timeout_s = 10

[redis]
url = "redis://{{redis}}/0"

[service]
publish_every_s = 2
"""
"""Each partition passes a point of adoption every second or two."""

CLIENTS = ("kafka-python", "confluent")
PARTITIONS = 6
KEPT = ("--appendonly", "yes", "--auto-aof-rewrite-percentage", "0")
"""For Redis: an append-only file, synced every second, that nothing but a power cut makes shorter."""
PATIENT_S = 120.0


class Served(NamedTuple):
    """A deployment without processes: its servers, its topics, its settings file."""

    deployment: Deployment
    config: Path
    brokers: Brokers
    redis: Server
    redis_files: Path


@contextmanager
def served(directory: Path, client: str, apache: bool, partitions: int = PARTITIONS) -> Iterator[Served]:
    """Start servers that end with the block, and create the topics.

    `client` is the Kafka library of workers and trainer; without `apache` the broker is a small one.
    """
    with (
        brokers(directory / "broker", apache) as nodes,
        redis_server(directory / "redis", *KEPT) as redis,
    ):
        config = directory / "faults.toml"
        addresses = json.dumps(nodes.address.split(","))
        config.write_text(CONFIG.format(brokers=addresses, client=client, redis=redis.address))
        deployment = Deployment(load_settings(config, {}))
        ttl_s = deployment.settings.memory.ttl_s
        create(deployment.connection, deployment.topics, partitions, len(nodes.nodes), ttl_s)
        try:
            yield Served(deployment, config, nodes, redis, directory / "redis")
        finally:
            deployment.store.close()


@contextmanager
def staffed(crew: Crew, workers: int) -> Iterator[Crew]:
    """A crew with so many workers, all of whose processes end with the block whatever happens."""
    try:
        for _ in range(workers):
            crew.start()
        yield crew
    finally:
        crew.kill()


def load_of(deployment: Deployment, seed: int, rate: float) -> Load:
    """A load that outlasts every stall, so that what it was acknowledged is exactly what was taken."""
    (topic,), episodes = deployment.kafka.inputs, deployment.topic("episodes")
    producer = KafkaOutputs(lambda: KafkaPythonProducer(deployment.connection, (topic, episodes), PATIENT_S))
    return Load(producer, topic, episodes, seed, rate)


def end(crew: Crew) -> float:
    """Tell everybody to stop; returns how long the slowest took."""
    began = monotonic()
    for process in crew.all():
        process.signal(signal.SIGTERM)
    for process in crew.all():
        process.must_end(0)
    return monotonic() - began

"""Count what a deployment loses or doubles when its processes and servers are killed and stalled under load.

Broker, Redis with an append-only file, workers and a trainer, as real processes on this machine. A schedule
drawn from a seed kills workers (half of them in the middle of a batch), stops workers for so long that the
group goes on without them and lets them go on writing, restarts Redis (where the plan says so, without what it
wrote in its last second, as after a power cut), stalls the broker, lets workers join and leave. All the while
events, labels and malformed messages come in at a steady rate, and theta advances. At the end everything is
compared with what was acknowledged to the sender, and with an uninterrupted refold under the recorded adoptions.
"""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic, sleep

import numpy as np
import torch

from benchmarks.fault_audit import audit
from benchmarks.fault_load import Load
from benchmarks.fault_processes import Crew, Process
from benchmarks.fault_scene import Scene
from benchmarks.reporting import arguments, show, write
from streams.deployment import Deployment
from streams.logs.kafka_outputs import KafkaOutputs
from streams.logs.kafka_producer import KafkaPythonProducer
from streams.logs.kafka_topics import create
from streams.servers import redis_server, tansu
from streams.settings import load_settings

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
bootstrap = ["{{broker}}"]
client = "{{client}}"
session_timeout_s = 6
delivery_timeout_s = 10

[redis]
url = "redis://{{redis}}/0"

[service]
publish_every_s = 2
"""
"""Each partition passes a point of adoption every second or two."""

PARTITIONS = 6
WORKERS = 3
KEPT = ("--appendonly", "yes", "--auto-aof-rewrite-percentage", "0")
"""An append-only file, synced every second, that nothing but a power cut makes shorter."""
PATIENT_S = 120.0
BEGIN_S = 1.0


@dataclass(frozen=True)
class Plan:
    """How much of each fault, and how long the broker stalls."""

    kills: int = 24
    zombies: int = 3
    redis_restarts: int = 2
    redis_power_cuts: int = 2
    stalls_s: tuple[float, ...] = (5.0, 20.0)
    """The longer of them is longer than the delivery timeout of the workers."""
    joins: int = 1
    leaves: int = 1
    rate: float = 300.0
    gap_s: float = 4.0
    """Mean time from one fault to the next."""


QUICK = Plan(
    kills=3,
    zombies=1,
    redis_restarts=1,
    redis_power_cuts=1,
    stalls_s=(2.0,),
    joins=0,
    leaves=0,
    rate=200.0,
    gap_s=0.5,
)


def survive(directory: Path, plan: Plan, seed: int, client: str = "kafka-python") -> dict[str, float]:
    """Let all of the plan's faults befall a deployment; what happened, and everything that is not as it should be.

    `client` is the Kafka library of workers and trainer; who sends and who audits use kafka-python.
    """
    with tansu(directory / "broker") as broker, redis_server(directory / "redis", *KEPT) as redis:
        config = directory / "faults.toml"
        config.write_text(CONFIG.format(broker=broker.address, client=client, redis=redis.address))
        deployment = Deployment(load_settings(config, {}))
        create(deployment.connection, deployment.topics, PARTITIONS, 1, deployment.settings.memory.ttl_s)
        load = _load(deployment, seed, plan.rate)
        rng = np.random.default_rng(seed)
        with _staffed(Crew(config, directory)) as (crew, trainer):
            scene = Scene(deployment, crew, broker, redis, directory / "redis", load, rng)
            seconds = {**_play(scene, plan), "exit_s": _end(crew, trainer)}
        figures = {**scene.happened, **audit(deployment, load.ledger), **seconds}
        deployment.store.close()
    return figures


def _play(scene: Scene, plan: Plan) -> dict[str, float]:
    """One fault after the other under load; then without, until all is folded."""
    began = monotonic()
    with scene.load:
        sleep(BEGIN_S)
        scene.wait_until_folded()
        for fault in schedule(plan, scene):
            sleep(float(scene.rng.exponential(plan.gap_s)))
            fault()
    caught_up_s = scene.wait_until_folded()
    return {"seconds": monotonic() - began, "caught_up_s": caught_up_s}


def schedule(plan: Plan, scene: Scene) -> list[Callable[[], None]]:
    """The faults of a plan, in an order drawn from the scene's seed."""
    faults: list[Callable[[], None]] = [
        *[scene.kill] * plan.kills,
        *[scene.zombie] * plan.zombies,
        *[scene.restart_redis] * plan.redis_restarts,
        *[scene.cut_power_of_redis] * plan.redis_power_cuts,
        *(partial(scene.stall_broker, seconds) for seconds in plan.stalls_s),
        *[scene.join] * plan.joins,
        *[scene.leave] * plan.leaves,
    ]
    return [faults[n] for n in scene.rng.permutation(len(faults))]


@contextmanager
def _staffed(crew: Crew) -> Iterator[tuple[Crew, Process]]:
    """Workers and a trainer, that end with the block whatever happens."""
    trainer = Process(["trainer", str(crew.config)], crew.directory / "trainer.log")
    try:
        for _ in range(WORKERS):
            crew.start()
        yield crew, trainer
    finally:
        crew.kill()
        trainer.kill()


def _load(deployment: Deployment, seed: int, rate: float) -> Load:
    """A load that outlasts every stall, so that what it was acknowledged is exactly what was taken."""
    (topic,) = deployment.kafka.inputs
    producer = KafkaOutputs(lambda: KafkaPythonProducer(deployment.connection, (topic,), PATIENT_S))
    return Load(producer, topic, seed, rate)


def _end(crew: Crew, trainer: Process) -> float:
    """Tell everybody to stop; returns how long the slowest took."""
    began = monotonic()
    for process in (trainer, *crew.members):
        process.signal(signal.SIGTERM)
    for process in (trainer, *crew.members):
        process.must_end(0)
    return monotonic() - began


def main() -> None:
    """Run the schedule, and count."""
    options = arguments(__doc__.splitlines()[0])
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        figures = survive(Path(folder), QUICK if options.quick else Plan(), seed=0)
    show("a deployment under faults", ["what", "count"], [[name, figure] for name, figure in figures.items()])
    write(options.json, figures)


if __name__ == "__main__":
    main()

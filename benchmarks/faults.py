"""Count what a deployment loses or doubles when its processes and servers are killed and stalled under load.

Three nodes of Apache Kafka, Redis with an append-only file, workers and a trainer, as real processes on this
machine; one small broker, which is stalled but not killed, where there is no java or no `.kafka` (`make .kafka`).
A schedule drawn from a seed kills workers (half of them in the middle of a batch), the trainer (in the middle of a
version) and brokers (the controller among them), stops workers for so long that the group goes on without them and
lets them go on writing, restarts Redis (where the plan says so, without what it wrote in its last second, as after
a power cut), restarts and stalls brokers, one and all, lets workers join and leave. All the while events, labels
and messages to be refused come in at a steady rate, into the episodes too, and theta advances. At the end everything
is compared with what was acknowledged to the sender, and with an uninterrupted refold under the recorded adoptions.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic, sleep

import numpy as np
import torch

from benchmarks.fault_audit import audit
from benchmarks.fault_brokers import apache_is_there
from benchmarks.fault_deployment import CLIENTS, end, load_of, served, staffed
from benchmarks.fault_processes import Crew
from benchmarks.fault_scaling import scale
from benchmarks.fault_scene import Scene
from benchmarks.reporting import arguments, show, write

WORKERS = 3
BEGIN_S = 1.0


@dataclass(frozen=True)
class Plan:
    """How much of each fault, and how long brokers stall."""

    kills: int = 40
    trainer_kills: int = 5
    broker_kills: int = 5
    broker_restarts: int = 1
    zombies: int = 2
    redis_restarts: int = 2
    redis_power_cuts: int = 2
    stalls_s: tuple[float, ...] = (5.0, 20.0)
    """Of one node. The longer of them is longer than the delivery timeout of the workers."""
    cluster_stalls_s: tuple[float, ...] = (5.0, 20.0)
    """Of all nodes at once."""
    joins: int = 1
    leaves: int = 1
    rate: float = 150.0
    gap_s: float = 2.0
    """Mean time from one fault to the next."""


QUICK = Plan(
    kills=3,
    trainer_kills=1,
    broker_kills=1,
    broker_restarts=0,
    zombies=1,
    redis_restarts=1,
    redis_power_cuts=1,
    stalls_s=(2.0,),
    cluster_stalls_s=(),
    joins=0,
    leaves=0,
    rate=200.0,
    gap_s=0.5,
)


def survive(
    directory: Path, plan: Plan, seed: int, client: str = "kafka-python", apache: bool = False
) -> dict[str, float]:
    """Let all of the plan's faults befall a deployment; what happened, and everything that is not as it should be.

    `client` is the Kafka library of workers and trainer; who sends and who audits use kafka-python. Without
    `apache` the broker is a small one.
    """
    with (
        served(directory, client, apache) as servers,
        staffed(Crew(servers.config, directory), WORKERS) as crew,
    ):
        load, rng = load_of(servers.deployment, seed, plan.rate), np.random.default_rng(seed)
        scene = Scene(servers, crew, load, rng)
        seconds = {**_play(scene, plan), "exit_s": end(crew)}
        return {**scene.happened, **audit(servers.deployment, load.ledger), **seconds}


def _play(scene: Scene, plan: Plan) -> dict[str, float]:
    """One fault after the other under load; then without, until all is folded and learned."""
    began = monotonic()
    with scene.load:
        sleep(BEGIN_S)
        scene.wait_until_folded()
        scene.wait_for_a_version()
        for fault in schedule(plan, scene):
            sleep(float(scene.rng.exponential(plan.gap_s)))
            fault()
    caught_up_s = scene.wait_until_folded()
    learned_s = scene.wait_until_learned()
    return {"seconds": monotonic() - began, "caught_up_s": caught_up_s, "learned_s": learned_s}


def schedule(plan: Plan, scene: Scene) -> list[Callable[[], None]]:
    """The faults of a plan, in an order drawn from the scene's seed; a small broker is stalled, and no more."""
    faults: list[Callable[[], None]] = [
        *[scene.kill] * plan.kills,
        *[scene.kill_trainer] * plan.trainer_kills,
        *[scene.zombie] * plan.zombies,
        *[scene.restart_redis] * plan.redis_restarts,
        *[scene.cut_power_of_redis] * plan.redis_power_cuts,
        *(partial(scene.stall_broker, seconds) for seconds in plan.stalls_s),
        *[scene.join] * plan.joins,
        *[scene.leave] * plan.leaves,
    ]
    if scene.servers.brokers.may_be_killed:
        faults += [scene.kill_broker] * plan.broker_kills
        faults += [scene.restart_broker] * plan.broker_restarts
        faults += [partial(scene.stall_brokers, seconds) for seconds in plan.cluster_stalls_s]
    return [faults[n] for n in scene.rng.permutation(len(faults))]


def main() -> None:
    """Run the schedule, or join and leave alone, and count."""
    options = arguments(__doc__.splitlines()[0], part=("faults", "scaling"), client=CLIENTS)
    torch.set_num_threads(1)
    part, client, apache = options.chosen["part"], options.chosen["client"], apache_is_there()
    with tempfile.TemporaryDirectory() as folder:
        if part == "faults":
            figures = survive(Path(folder), QUICK if options.quick else Plan(), 0, client, apache)
        else:
            figures = scale(Path(folder), 5.0 if options.quick else 30.0, 0, client, apache)
    on = "Apache Kafka" if apache else "a small broker: java or .kafka is missing"
    show(f"{part}, on {on}", ["what", "count"], [[*pair] for pair in figures.items()])
    write(options.json, figures)


if __name__ == "__main__":
    main()

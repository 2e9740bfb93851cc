"""Measure one worker between Kafka and Redis: throughput, age of events, CPU of each stage, memory, and two workers.

One node of Apache Kafka (a small broker where java or `.kafka` is missing), Redis with an append-only file and one
worker share the machine; the model, the tasks and the
traffic are those of `benchmarks.stream`, as JSON of some 480 bytes an event, and a new theta is published every
20 batches. Throughput is that of a log that lies there already, from the poll to the commit, predictions and
scores acknowledged; ages are from the moment the broker took an event to the end of its batch, while another
process produces 8,000 events a second.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import orjson
import torch

from benchmarks.fault_brokers import apache_is_there, brokers
from benchmarks.reporting import Figure, arguments, show, write
from benchmarks.stream import FEATURES, TASKS, TRAFFIC, settings_of, traffic_of, when_known
from engine.outer.fit import start
from engine.types import Float64, Outcome
from streams.assembly.deployed import Deployment
from streams.assembly.parts import trainer
from streams.logs.kafka.outputs import Sent
from streams.logs.kafka.topics import create
from streams.logs.output import TOPICS
from streams.program.progress import Progress
from streams.program.worker_service import WorkerService
from streams.settings.tree import validated
from streams.testing.servers import Server, redis_server

CLIENTS = ("kafka-python", "confluent")
PARTITIONS = 4
RATE = 8_000
WARM_UP = 0.2
"""Share of the events that come before the measurement: the first batches record the tensor operations."""
BATCHES_A_VERSION = 20
SENT_AT_ONCE = 5_000
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
STAGES = {
    "log": ("poll", "commit"),
    "store": ("adopt", "forgotten", "load", "swap"),
    "engine": ("fold_into",),
    "outputs": ("produce", "sync"),
}
"""Calls of a worker whose CPU is counted; what is left of a batch is decoding and counting."""


@dataclass(frozen=True)
class Cluster:
    """A broker and a Redis."""

    broker: Server
    redis: Server

    def deployment(self, name: str, client: str = "kafka-python", topic: str = "") -> Deployment:
        """A stream of its own, on the topic of another one where given."""
        tree = settings_of(Path("none.parquet"), Path("none")).model_dump()
        tree |= {
            "stream": name,
            "input": None,
            "kafka": {
                "bootstrap": [self.broker.address],
                "inputs": [topic or f"{name}-events"],
                "client": client,
                "session_timeout_s": 6,
            },
            "redis": {"url": f"redis://{self.redis.address}/0"},
            "service": {"durability_lag_s": 0.0},
        }
        deployment = Deployment(validated(tree, "benchmarks.kafka_redis"))
        create(deployment.connection, deployment.topics, PARTITIONS, 1, deployment.settings.memory.ttl_s)
        return deployment


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Start both, and stop them."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        nodes = stack.enter_context(brokers(folder / "broker", apache_is_there(), 1)).nodes
        redis = stack.enter_context(redis_server(folder / "redis", "--appendonly", "yes"))
        yield Cluster(nodes[0], redis)


def messages(traffic: str, events: int) -> Iterator[Sent]:
    """Observations and labels in the order of their times, keyed by task."""
    task, x, y = traffic_of(traffic, events)
    known = when_known(task)
    rows, names = len(task), [f"f{i}" for i in range(FEATURES)]
    order = np.argsort(np.concatenate([np.arange(rows, dtype=np.float64), known]), kind="stable")
    for k in order[: 2 * rows - int(np.isnan(known).sum())].tolist():
        n = k % rows
        said: dict[str, Any] = {
            "task": f"user-{task[n]}",
            "id": n,
            "time": float(n if k < rows else known[n]),
        }
        if k < rows:
            said["features"] = dict(zip(names, x[n].astype(float).round(4).tolist(), strict=True))
        else:
            said["label"] = int(y[n])
        yield Sent(said["task"].encode(), orjson.dumps(said))


def send(deployment: Deployment, traffic: str, events: int, rate: float = 0.0) -> int:
    """Produce events, at a rate where given; returns how many there are."""
    prepared = list(messages(traffic, events))
    producer = deployment.producer(*deployment.kafka.inputs)
    portion = SENT_AT_ONCE if rate == 0 else int(rate / 50)
    began = time.monotonic()
    for at in range(0, len(prepared), portion):
        producer.send(deployment.kafka.inputs[0], prepared[at : at + portion])
        if rate:
            time.sleep(max(0.0, began + (at + portion) / rate - time.monotonic()))
        else:
            producer.sync()
    producer.sync()
    producer.close()
    return len(prepared)


@dataclass
class Watched:
    """Passes calls on to an object, and counts the CPU of some of them in this thread."""

    watched: Any
    calls: tuple[str, ...]
    cpu_s: float = 0.0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.watched, name)
        return self._timed(found) if name in self.calls else found

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **options: Any) -> Any:
            began = time.thread_time()
            try:
                return call(*given, **options)
            finally:
                self.cpu_s += time.thread_time() - began

        return timed


@dataclass
class Drive:
    """One worker, in this process, over a number of events; measures what comes after the warm-up."""

    deployment: Deployment
    cluster: Cluster
    events: int
    stages: dict[str, Watched] = field(default_factory=dict)
    ages: list[Any] = field(default_factory=list)
    resident: list[tuple[int, float]] = field(default_factory=list)
    """(events, bytes) after each batch."""
    began: dict[str, float] = field(default_factory=dict)
    measured_from: int = 0
    stopping: Event = field(default_factory=Event)
    batches: int = 0

    def run(self) -> dict[str, float]:
        """Fold all events; returns the figures."""
        self._publish(1)
        producer = self.deployment.producer(*map(self.deployment.topic, TOPICS))
        service = self._watched(self.deployment.worker(self.deployment.log(), producer, self._after, print))
        progress = service.run(self.stopping)
        ended = self._clocks()
        producer.close()
        counted = progress.events - self.measured_from
        spent = {name: (ended[name] - self.began[name]) / counted * 1e6 for name in ended if name != "wall"}
        return {
            "events_per_s": counted / (ended["wall"] - self.began["wall"]),
            "age_p50_s": float(np.quantile(np.concatenate(self.ages), 0.5)),
            "age_p99_s": float(np.quantile(np.concatenate(self.ages), 0.99)),
            "lift": progress.lift,
            **{f"{name}_us": value for name, value in spent.items()},
        }

    def _watched(self, service: WorkerService) -> WorkerService:
        worker = service.worker
        parts = {"log": worker.log, "store": worker.store, "engine": worker.engine, "outputs": worker.outputs}
        self.stages = {name: Watched(part, STAGES[name]) for name, part in parts.items()}
        batch = worker.telemetry.batch

        def watched(seconds: float, events: int, ages_s: Float64) -> None:
            self.ages.append(ages_s)
            batch(seconds, events, ages_s)

        worker.telemetry.batch = watched  # type: ignore[method-assign]
        given: dict[str, Any] = dict(self.stages)
        service.log = given["log"]
        service.worker = replace(worker, **given)
        return service

    def _after(self, progress: Progress) -> None:
        """After each batch: begin to measure, publish, end."""
        self.batches += 1
        self.resident.append((progress.events, resident_bytes()))
        if not self.began and progress.events >= WARM_UP * self.events:
            self.began, self.measured_from = self._clocks(), progress.events
            self.ages.clear()
        if self.batches % BATCHES_A_VERSION == 0:
            self._publish(self.batches // BATCHES_A_VERSION + 1)
        if progress.events >= self.events:
            self.stopping.set()

    def _publish(self, version: int) -> None:
        on = self.deployment
        learner = on.engine.learner
        trainer(on.settings, on.spec, learner, on.versions).publish(version, start(learner, 0), {})

    def _clocks(self) -> dict[str, float]:
        """Seconds of wall, and of CPU: the worker's whole process, its stages, the servers."""
        servers = {"broker": self.cluster.broker, "redis": self.cluster.redis}
        return {
            "wall": time.perf_counter(),
            "worker": time.process_time(),
            **{name: stage.cpu_s for name, stage in self.stages.items()},
            **{name: cpu_seconds(server.process.pid) for name, server in servers.items()},
        }


def cpu_seconds(pid: int) -> float:
    """CPU of another process and its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def resident_bytes() -> float:
    """Memory of this process."""
    return float(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))


def backlog(client: str, traffic: str, events: int) -> dict[str, float]:
    """Events that lie in the log already."""
    with cluster() as servers:
        deployment = servers.deployment("backlog", client)
        return Drive(deployment, servers, send(deployment, traffic, events)).run()


def _send_at_rate(settings: str, traffic: str, events: int) -> None:
    tree = orjson.loads(settings)
    tree["redis"] = None
    deployment = Deployment(validated(tree, "producer"))
    send(deployment, traffic, events, RATE)


def live(client: str, traffic: str, events: int) -> dict[str, float]:
    """Events that another process produces meanwhile; it takes longer to begin than the worker to join."""
    with cluster() as servers:
        deployment = servers.deployment("live", client)
        total = sum(1 for _ in messages(traffic, events))
        settings = deployment.settings.model_dump_json()
        beside = multiprocessing.get_context("spawn").Process(
            target=_send_at_rate, args=(settings, traffic, events)
        )
        beside.start()
        figures = Drive(deployment, servers, total).run()
        beside.join()
        return figures


def flat(events: int) -> dict[str, float]:
    """How much memory the worker has gained per event, from a fifth of the events to the last."""
    with cluster() as servers:
        deployment = servers.deployment("flat")
        drive = Drive(deployment, servers, send(deployment, "even", events))
        drive.run()
        first = next(size for done, size in drive.resident if done >= WARM_UP * drive.events)
        return {
            "events": float(drive.events),
            "resident_mib": drive.resident[-1][1] / 2**20,
            "gained_mib": (drive.resident[-1][1] - first) / 2**20,
        }


def _work(settings: str, done: Any) -> None:
    """One of two workers, until all events are folded."""
    torch.set_num_threads(1)
    deployment = Deployment(validated(orjson.loads(settings), "worker"))
    producer = deployment.producer(*map(deployment.topic, TOPICS))
    service = deployment.worker(deployment.log(), producer, _quiet, print)
    service.run(done)
    producer.close()


def _quiet(_: Progress) -> None:
    """Nothing to show."""


def two_workers(events: int) -> dict[str, float]:
    """The same topic under one worker and under two: rows that differ, and events not counted once."""
    with cluster() as servers:
        one = servers.deployment("one", topic="events")
        total = send(one, "zipf", events)
        drive = Drive(one, servers, total)
        drive.run()
        two = servers.deployment("two", topic="events")
        versions = drive.batches // BATCHES_A_VERSION + 1
        for version in range(1, versions + 1):
            Drive(two, servers, total)._publish(version)  # noqa: SLF001
        two.store.record(one.store.adoptions())
        _run_two(two, total)
        return compared(one, two, total)


def _run_two(deployment: Deployment, total: int) -> None:
    context = multiprocessing.get_context("spawn")
    done = context.Event()
    arguments = (_with_secrets(deployment), done)
    workers = [context.Process(target=_work, args=arguments) for _ in range(2)]
    for worker in workers:
        worker.start()
    deadline = time.monotonic() + 300
    while folded(deployment) < total and time.monotonic() < deadline:
        time.sleep(0.5)
    done.set()
    for worker in workers:
        worker.join()


def _with_secrets(deployment: Deployment) -> str:
    tree = deployment.settings.model_dump(mode="json")
    tree["redis"]["url"] = deployment.redis.url.get_secret_value()
    return orjson.dumps(tree).decode()


def folded(deployment: Deployment) -> int:
    """Events that the rows have counted."""
    counts = rows_of(deployment)["counts"]
    return int(counts.sum() - counts[:, [Outcome.EXPIRED, Outcome.DUPLICATE]].sum())


def rows_of(deployment: Deployment) -> Any:
    """The rows of all tasks."""
    return deployment.store.load(deployment.engine.layout, [f"user-{u}" for u in range(TASKS)]).rows


def compared(one: Deployment, two: Deployment, total: int) -> dict[str, float]:
    """Rows that differ in any field but the number of times they were written."""
    rows, others = rows_of(one), rows_of(two)
    names = [name for name in rows.dtype.names if name not in ("revision", "checksum")]
    differing = sum(
        any(rows[name][u].tobytes() != others[name][u].tobytes() for name in names) for u in range(TASKS)
    )
    return {
        "events": float(total),
        "rows_differing": float(differing),
        "not_once": float(abs(folded(one) - total) + abs(folded(two) - total)),
    }


def main() -> None:
    """Measure all of it."""
    options = arguments(__doc__.splitlines()[0])
    torch.set_num_threads(1)
    divisor = 20 if options.quick else 1
    found: dict[str, Mapping[str, float]] = {}
    for client in CLIENTS:
        for traffic in TRAFFIC:
            found[f"{client}.{traffic}"] = backlog(client, traffic, 400_000 // divisor)
        for traffic in TRAFFIC:
            found[f"{client}.live.{traffic}"] = live(client, traffic, 400_000 // divisor)
    memory, scaled = flat(1_000_000 // divisor), two_workers(200_000 // divisor)
    columns = ["events_per_s", "age_p50_s", "age_p99_s", "worker_us", "log_us", "store_us", "engine_us",
               "outputs_us", "broker_us", "redis_us", "lift"]  # fmt: skip
    rows: list[list[Figure]] = [
        [name, *(figures[column] for column in columns)] for name, figures in found.items()
    ]
    show("one worker, Kafka and Redis on the same machine", ["", *columns], rows)
    show("memory, and two workers", ["", "figure"], [*(memory | scaled).items()])
    figures = {f"{name}.{key}": value for name, part in found.items() for key, value in part.items()}
    figures |= {f"flat.{key}": value for key, value in memory.items()}
    figures |= {f"two_workers.{key}": value for key, value in scaled.items()}
    figures["events_per_s"] = min(found[f"kafka-python.{traffic}"]["events_per_s"] for traffic in TRAFFIC)
    figures["age_p99_s"] = max(found[f"kafka-python.live.{traffic}"]["age_p99_s"] for traffic in TRAFFIC)
    write(options.json, figures)


if __name__ == "__main__":
    main()

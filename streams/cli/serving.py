"""What the processes of a deployment do, and the commands that write to its topics or make them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from shutil import copyfileobj
from tempfile import TemporaryFile
from threading import Event
from time import perf_counter
from typing import IO, TypeVar

import typer

from engine.stream.warm import warm_up
from streams.assembly.deployed import Deployment
from streams.assembly.embedded import input_log
from streams.cli.arguments import console
from streams.errors import InputError
from streams.logs.kafka.outputs import KafkaOutputs
from streams.logs.output import DEAD_LETTER, TOPICS
from streams.operate.produce import produce as produce_log
from streams.operate.redrive import redrive as redrive_letters
from streams.operate.tail import tail as tail_topic
from streams.pages.progress import now_and_then, progress_bar, said_of
from streams.program import warm_trainer
from streams.program.patience import made, stopping_on_signals
from streams.program.progress import Progress
from streams.program.pruning import most_bytes
from streams.program.rollback import roll_back
from streams.program.trainer import Advance
from streams.program.trainer_service import READS
from streams.program.worker_service import JOINS
from streams.settings.tree import Settings
from streams.stores.redis.capacity import capacity, warnings
from streams.system.machine import keep_freed_memory
from streams.watch.health import Health, HealthServer
from streams.watch.telemetry import Telemetry

TOLD_EVERY_S = 10.0

S = TypeVar("S")


def worker(settings: Settings) -> None:
    """Fold the partitions that are this member's, until told to stop."""
    deployment = Deployment(settings)
    engine = deployment.engine  # checks may take longer than servers are waited for
    made(lambda: check_room(deployment))
    totals = Progress()
    with stopping_on_signals() as stopping:
        producer = made(lambda: deployment.producer(*map(deployment.topic, TOPICS)))
        try:
            warm_up(engine)  # for seconds, in which partitions that it was given would stand still
            if not stopping.is_set():  # else joining would hold up the others, and then leaving would
                totals = _member(deployment, producer, stopping)
        finally:
            producer.close()
            deployment.store.close()
    console.print(f"stopped after {totals.events:,} events")


def trainer(settings: Settings) -> None:
    """Train theta and publish its versions, until told to stop."""
    keep_freed_memory()
    deployment = Deployment(settings)
    with stopping_on_signals() as stopping:
        service = made(lambda: deployment.trainer(_now_and_then(_advanced), console.print))
        warm_trainer.warm_up(service.trainer)  # for seconds, in which labels may come already
        with _served(deployment, service.health, service.telemetry):
            console.print(f"{READS} {deployment.topic('episodes')}")
            service.run(stopping)
    deployment.store.close()


def rollback(settings: Settings, version: int) -> None:
    """Publish an earlier version of theta as the newest."""
    deployment = Deployment(settings)
    console.print(f"theta {version} is now version {roll_back(deployment.versions, version)}")
    deployment.store.close()


def produce(settings: Settings, rate: float) -> None:
    """Send the rows of the input file to Kafka."""
    deployment = Deployment(settings)
    log = input_log(settings, deployment.spec.problem, None)
    names = deployment.kafka.inputs
    producer = made(lambda: deployment.producer(*names))
    with (
        closing(producer),
        stopping_on_signals() as stopping,
        progress_bar(console, f"to {' and '.join(names)}", log.end()) as show,
    ):
        outputs = [producer.topic(name) for name in names]
        fields, began = deployment.spec.problem.features.names, perf_counter()

        def tell(events: int) -> None:
            """How many, and how fast."""
            show(events, Progress(events=events, seconds=perf_counter() - began))

        sent = produce_log(log, outputs, fields, rate, stopping, tell)
    console.print(f"{sent:,} events sent")


def tail(settings: Settings, output: str, whole: bool) -> None:
    """Print the lines of an output."""
    deployment = Deployment(settings)
    reader = made(lambda: deployment.reader(output))
    with stopping_on_signals() as stopping:
        for line in tail_topic(reader, output == DEAD_LETTER, whole, stopping):
            typer.echo(line)


def redrive(settings: Settings, letters: Path) -> None:
    """Send dead letters back to the topics that they came from."""
    deployment = Deployment(settings)
    names = deployment.kafka.inputs
    with _opened(letters) as file, closing(made(lambda: deployment.producer(*names))) as producer:
        sent = redrive_letters(file, names, producer, deployment.kafka.keys == "task")
    console.print(f"{sent:,} events sent")


def create_topics(settings: Settings, partitions: int, replication: int) -> None:
    """Create the topics that are not there yet, and say which."""
    from streams.logs.kafka.topics import create

    deployment = Deployment(settings)
    ttl_s = settings.memory.ttl_s
    created = made(lambda: create(deployment.connection, deployment.topics, partitions, replication, ttl_s))
    for name in deployment.topics.all():
        shared = "; this stream reads all of its events (kafka.inputs)" * (name in deployment.kafka.inputs)
        console.print(f"created {name}" if name in created else f"{name} was there already{shared}")


def check_topics(settings: Settings) -> bool:
    """Say what is wrong with the topics, and whether the stream can do with them."""
    from streams.logs.kafka.last_messages import unreadable
    from streams.logs.kafka.topics import check

    deployment = Deployment(settings)
    lives = settings.memory.ttl_s, deployment.redis.tombstone_s
    null_values = deployment.kafka.tombstones == "dead-letter"
    judge = partial(unreadable, deployment.envelope, deployment.spec.problem, null_values)
    findings = made(lambda: check(deployment.connection, deployment.topics, *lives, judge))
    for finding in findings:
        console.print(f"{finding.severity}: {finding.sentence}")
    if any(finding.severity == "error" for finding in findings):
        return False
    console.print("the topics are as they should be")
    return True


def check_room(deployment: Deployment) -> None:
    """Refuse a Redis that would drop rows; warn of one that might."""
    row_bytes, ttl_s = deployment.layout.bytes_per_task, deployment.redis.ttl_s
    beside = most_bytes(deployment.settings.outer.keep_gib, max(1, deployment.store.partitions()))
    room = capacity(deployment.server, row_bytes, ttl_s, beside)
    for warning in warnings(room, deployment.redis.tasks):
        console.print(f"warning: {warning}")


def _member(deployment: Deployment, producer: KafkaOutputs, stopping: Event) -> Progress:
    """Join the group, and fold as a member of it until told to stop."""
    log = made(deployment.log)
    service = made(lambda: deployment.worker(log, producer, _now_and_then(said_of), console.print))
    with _served(deployment, service.health, service.worker.telemetry):
        console.print(f"{JOINS} {deployment.group}")
        return service.run(stopping)


def _opened(letters: Path) -> IO[bytes]:
    """A file that can be read twice; what comes by standard input is kept in one that goes with the process."""
    try:
        if str(letters) != "-":
            return letters.open("rb")
        kept = TemporaryFile()  # noqa: SIM115 - the caller closes it
        copyfileobj(sys.stdin.buffer, kept)
    except OSError as error:
        raise InputError(f"{letters} cannot be read: {error.strerror}") from None
    kept.seek(0)
    return kept


@contextmanager
def _served(deployment: Deployment, health: Health, telemetry: Telemetry) -> Iterator[None]:
    """Serve metrics and probes while something runs, where a port is set."""
    service = deployment.settings.service
    if service.port is None:
        yield
        return
    with HealthServer(health, telemetry.exposition, service.port, service.host) as server:
        console.print(f"metrics on http://{service.host}:{server.port}/metrics")
        yield


def _now_and_then(words: Callable[[S], str]) -> Callable[[S], None]:
    """Say how it goes, at most every few seconds."""
    tell = now_and_then(console.print, TOLD_EVERY_S)
    return lambda state: tell(lambda: words(state))


def _advanced(advance: Advance) -> str:
    verdict = advance.verdict
    judged = (
        f"; held-out loss {verdict.loss_before:.4f} -> {verdict.loss_after:.4f}" if verdict.episodes else ""
    )
    return f"theta {advance.version} from {advance.labels:,} labels{judged}{', refused' * verdict.refused}"

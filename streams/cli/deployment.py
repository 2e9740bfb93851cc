"""The commands of a deployment: worker, trainer, rollback, produce, tail, topics create|check, redrive."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from shutil import copyfileobj
from tempfile import TemporaryFile
from threading import Event
from time import perf_counter
from typing import IO, TYPE_CHECKING, Annotated, TypeVar

import typer

from engine.stream.warm import warm_up
from streams.assembly.embedded import input_log
from streams.cli.arguments import Config, Flags, console, settings_from
from streams.errors import InputError, ReptideError
from streams.operate.produce import produce as produce_log
from streams.operate.redrive import redrive as redrive_letters
from streams.operate.tail import tail as tail_topic
from streams.pages.progress import now_and_then, progress_bar, said_of
from streams.program.embedded import Progress
from streams.program.outputs import DEAD_LETTER, TOPICS
from streams.program.patience import made, stopping_on_signals
from streams.program.pruning import most_bytes
from streams.program.rollback import roll_back
from streams.program.trainer import Advance
from streams.program.worker_service import JOINS
from streams.settings.tree import Settings
from streams.watch.health import Health, HealthServer
from streams.watch.telemetry import Telemetry

if TYPE_CHECKING:
    from streams.assembly.deployed import Deployment
    from streams.logs.kafka.outputs import KafkaOutputs

app = typer.Typer()
topics = typer.Typer(help="The topics of a stream.", no_args_is_help=True)
app.add_typer(topics, name="topics")

TOLD_EVERY_S = 10.0

S = TypeVar("S")


@app.command()
def worker(config: Config, flag: Flags = None) -> None:
    """Fold the partitions of the stream that are this member's, until told to stop (SIGTERM)."""
    deployment = _deployment(settings_from(config, flag))
    engine = deployment.engine  # checks may take longer than servers are waited for
    made(lambda: _check_room(deployment))
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


@app.command()
def trainer(config: Config, flag: Flags = None) -> None:
    """Train theta on the episodes of all workers and publish its versions, until told to stop (SIGTERM)."""
    deployment = _deployment(settings_from(config, flag))
    with stopping_on_signals() as stopping:
        service = made(lambda: deployment.trainer(_now_and_then(_advanced), console.print))
        with _served(deployment, service.health, service.telemetry):
            service.run(stopping)
    deployment.store.close()


@app.command()
def rollback(
    version: Annotated[int, typer.Argument(min=1, help="An earlier version of theta.", show_default=False)],
    config: Config,
    flag: Flags = None,
) -> None:
    """Publish an earlier version of theta as the newest: the way back from one that harms."""
    deployment = _deployment(settings_from(config, flag))
    console.print(f"theta {version} is now version {roll_back(deployment.versions, version)}")
    deployment.store.close()


@app.command()
def produce(
    config: Config,
    rate: Annotated[float, typer.Option(min=0, help="Events a second; 0: as fast as it goes.")] = 0.0,
    flag: Flags = None,
) -> None:
    """Send the rows of the input file to Kafka, as observations and delayed labels."""
    settings = settings_from(config, flag)
    deployment = _deployment(settings)
    log = input_log(settings, deployment.spec, None)
    names = deployment.kafka.inputs
    producer = made(lambda: deployment.producer(*names))
    with (
        closing(producer),
        stopping_on_signals() as stopping,
        progress_bar(console, f"to {' and '.join(names)}", log.end()) as show,
    ):
        outputs = [producer.topic(name) for name in names]
        fields, began = deployment.spec.features.names, perf_counter()

        def tell(events: int) -> None:
            """How many, and how fast."""
            show(events, Progress(events=events, seconds=perf_counter() - began))

        sent = produce_log(log, outputs, fields, rate, stopping, tell)
    console.print(f"{sent:,} events sent")


@app.command()
def tail(
    output: Annotated[str, typer.Argument(help=f"One of {', '.join(TOPICS)}.", show_default=False)],
    config: Config,
    whole: Annotated[
        bool, typer.Option("--whole", help="From the start to the end, instead of what comes.")
    ] = False,
    flag: Flags = None,
) -> None:
    """Print an output as it comes, one JSON object a line."""
    if output not in TOPICS:
        raise ReptideError(f"there is no output {output!r}; there are {', '.join(TOPICS)}")
    deployment = _deployment(settings_from(config, flag))
    reader = made(lambda: deployment.reader(output))
    with stopping_on_signals() as stopping:
        for line in tail_topic(reader, output == DEAD_LETTER, whole, stopping):
            typer.echo(line)


@app.command()
def redrive(
    letters: Annotated[
        Path, typer.Argument(help="Dead letters as `tail dead-letter` prints them; - reads them.")
    ],
    config: Config,
    flag: Flags = None,
) -> None:
    """Send dead letters, repaired, back to the topics that they came from."""
    deployment = _deployment(settings_from(config, flag))
    names = deployment.kafka.inputs
    with _opened(letters) as file, closing(made(lambda: deployment.producer(*names))) as producer:
        sent = redrive_letters(file, names, producer, deployment.kafka.keys == "task")
    console.print(f"{sent:,} events sent")


@topics.command("create")
def create(
    config: Config,
    partitions: Annotated[
        int, typer.Option(min=1, help="Of every topic; it bounds the number of workers.")
    ] = 12,
    replication: Annotated[int, typer.Option(min=1, help="Copies of each partition.")] = 1,
    flag: Flags = None,
) -> None:
    """Create the topics that are not there yet."""
    from streams.logs.kafka.topics import create as create_topics

    settings = settings_from(config, flag)
    deployment = _deployment(settings)
    ttl_s = settings.memory.ttl_s
    created = made(
        lambda: create_topics(deployment.connection, deployment.topics, partitions, replication, ttl_s)
    )
    for name in deployment.topics.all():
        shared = "; this stream reads all of its events (kafka.inputs)" * (name in deployment.kafka.inputs)
        console.print(f"created {name}" if name in created else f"{name} was there already{shared}")


@topics.command("check")
def check(config: Config, flag: Flags = None) -> None:
    """See whether the topics are as the stream needs them; exit status 1 where they are not."""
    from streams.logs.kafka.topics import check as check_topics

    settings = settings_from(config, flag)
    deployment = _deployment(settings)
    lives = settings.memory.ttl_s, deployment.redis.tombstone_s
    findings = made(lambda: check_topics(deployment.connection, deployment.topics, *lives))
    for finding in findings:
        console.print(f"{finding.severity}: {finding.sentence}")
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(1)
    console.print("the topics are as they should be")


def _member(deployment: Deployment, producer: KafkaOutputs, stopping: Event) -> Progress:
    """Join the group, and fold as a member of it until told to stop."""
    log = made(deployment.log)
    service = made(lambda: deployment.worker(log, producer, _now_and_then(said_of), console.print))
    with _served(deployment, service.health, service.worker.telemetry):
        console.print(f"{JOINS} {deployment.group}")
        return service.run(stopping)


def _deployment(settings: Settings) -> Deployment:
    """The parts of a deployment, made when a command runs: its help needs no client library."""
    from streams.assembly.deployed import Deployment

    return Deployment(settings)


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


def _check_room(deployment: Deployment) -> None:
    """Refuse a Redis that would drop rows; warn of one that might."""
    from streams.stores.redis.capacity import capacity, warnings

    row_bytes, ttl_s = deployment.layout.bytes_per_task, deployment.redis.ttl_s
    beside = most_bytes(deployment.settings.outer.keep_gib, max(1, deployment.store.partitions()))
    room = capacity(deployment.server, row_bytes, ttl_s, beside)
    for warning in warnings(room, deployment.redis.tasks):
        console.print(f"warning: {warning}")


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

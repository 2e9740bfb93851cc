"""`reptide demo-kafka`: the flights once more, through a broker and Redis, with two workers and a trainer.

The answer has to be the embedded demonstration's. The trainer now runs beside the workers, so they adopt each
version of theta a little later, and two things are looked at. What was served is compared with what the
embedded run served, label by label. And the topics are folded again under the adoptions that Redis has recorded,
which must give every row of Redis, bit for bit.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event
from time import monotonic, perf_counter, sleep
from types import FrameType
from typing import Any

import orjson
from rich.console import Console
from rich.progress import Progress as Bar
from rich.progress import TextColumn

from engine.stream.table import TaskTable
from engine.types import Kind, Outcome
from streams.assembly.deployed import Deployment
from streams.assembly.embedded import input_log
from streams.demo import embedded as demo
from streams.demo.compared import evaluated, gaps, scores_in, verdict
from streams.demo.folded_again import differing_rows, rows_of
from streams.demo.processes import Role, processes, wait_until_said
from streams.errors import InputError, ReptideError
from streams.logs.base import ReplayLog
from streams.logs.kafka.topics import create
from streams.operate.produce import produce
from streams.pages.progress import now_and_then, said_of, working
from streams.program.progress import Progress
from streams.program.trainer_service import READS
from streams.program.worker_service import JOINS
from streams.settings.tree import load_settings
from streams.system.files import write_whole
from streams.testing.apache_kafka import ApacheKafka
from streams.testing.servers import Server, redis_server, tansu

ROLES = {"worker-1": "worker", "worker-2": "worker", "trainer": "trainer"}
FIRST_WORDS = {"worker": JOINS, "trainer": READS}
PARTITIONS = 2
"""One for each worker; of the three airports one worker has two, however many partitions there are."""

DEPLOYMENT = """
[kafka]
bootstrap = ["{broker}"]
session_timeout_s = 6

[redis]
url = "redis://{redis}/0"

[service]
durability_lag_s = 0
publish_every_s = 0.5
"""
"""What the settings of the embedded demonstration lack."""
REDIS = ("--appendonly", "yes", "--appendfsync", "always")
"""It writes through before it answers, so nothing has to wait for a durability lag."""

TOGETHER = {"group.initial.rebalance.delay.ms": "3000"}
"""Apache Kafka's default: workers that start together share the partitions from the beginning."""

REPORTED = (*demo.REPORTED, "embedded")
LOOK_S = 0.5
PATIENCE_S = 60.0
"""Where nothing at all happens for so long, something is wrong."""
AT_ONCE = 4096

Show = Callable[[int, Progress], None]


def run_demo_kafka(out: Path, embedded: Path, rate: float, jars: Path | None, console: Console) -> None:
    """Stream the flights that `reptide demo` left in `embedded` through a deployment, and write `demo.json`.

    The broker is Apache Kafka where there are its `jars`, else Tansu.
    """
    if not (embedded / demo.BASELINES).exists():
        raise InputError(f"{embedded / demo.BASELINES} is missing: run `reptide demo --out {embedded}` first")
    for folder in ("broker", "redis", "outputs"):
        shutil.rmtree(out / folder, ignore_errors=True)
    with (
        _ended_by_signals() as asked,
        _broker(out / "broker", jars, console) as broker,
        redis_server(out / "redis", *REDIS) as redis,
    ):
        config = _written(out, broker.address, redis.address)
        deployment = Deployment(load_settings(config, os.environ))
        create(deployment.connection, deployment.topics, PARTITIONS, 1, deployment.settings.memory.ttl_s)
        with processes(ROLES, config) as running:
            totals = _stream(deployment, _flights(deployment, embedded), rate, running, console, asked)
        with working(console, "reading the scores"):
            write_scores(deployment, _flights(deployment, embedded), out)
        with working(console, "folding the topics again under the adoptions that Redis recorded"):
            rows = rows_of(deployment)
            differing = differing_rows(config, rows)
        deployment.store.close()
    evaluation = evaluated(deployment.spec.problem.target, out, embedded)
    checked = {"embedded_gap": gaps(evaluation), "rows": len(rows), "rows_differing": len(differing)}
    said = demo.figures(evaluation, totals, REPORTED) | checked
    write_whole(out / "demo.json", (json.dumps(said, indent=1) + "\n").encode())
    console.print(demo.comparison(evaluation, REPORTED), soft_wrap=False)
    console.print(verdict(evaluation, differing, len(rows)))
    console.print(f"figures: {out / 'demo.json'}")


def _broker(directory: Path, jars: Path | None, console: Console) -> Server | ApacheKafka:
    """Start a broker, and say which."""
    if jars is None:
        console.print("broker: Tansu, a small one that keeps all in memory; with --jars it is Apache Kafka")
        return tansu(directory)
    with working(console, "starting Apache Kafka"):
        kafka = ApacheKafka(directory, jars, properties=TOGETHER)
    console.print(f"broker: Apache Kafka {kafka.version}, one node in KRaft mode")
    return kafka


def _written(out: Path, broker: str, redis: str) -> Path:
    """The settings file of the deployment."""
    config = out / demo.SETTINGS.name
    sections = DEPLOYMENT.format(broker=broker, redis=redis)
    config.write_text(f'stream = "flights"\n{demo.SETTINGS.read_text()}{sections}')
    return config


def _flights(deployment: Deployment, embedded: Path) -> ReplayLog:
    return input_log(demo.flight_settings(embedded, "ours"), deployment.spec.problem, None)


def _stream(
    deployment: Deployment,
    log: ReplayLog,
    rate: float,
    running: Sequence[Role],
    console: Console,
    asked: Event,
) -> Progress:
    """Send every event, and wait until the rows have counted them all."""
    with working(console, "trainer and workers warm up, and these join their group"):
        for role, words in FIRST_WORDS.items():
            wait_until_said([one for one in running if ROLES[one.name] == role], words, asked)
    names, total = deployment.kafka.inputs, log.end()
    producer, stopping, sent = deployment.producer(*names), Event(), [0]
    topics = [producer.topic(name) for name in names]
    fields = deployment.spec.problem.features.names
    with _bars(console, total) as show, ThreadPoolExecutor(1) as beside:
        sending = beside.submit(produce, log, topics, fields, rate, stopping, sent.append)
        try:
            for totals in _looks(deployment, total):
                show(sent[-1], totals)
                if asked.is_set():
                    raise KeyboardInterrupt
                for one in running:
                    one.check()
                if sending.done():
                    sending.result()
        finally:
            stopping.set()
            producer.close()
    return totals


def _looks(deployment: Deployment, total: int) -> Iterator[Progress]:
    """What the rows have counted, again and again until it is all of the events."""
    totals, moved = Progress(), monotonic()
    while totals.events < total:
        sleep(LOOK_S)
        before, totals = totals, folded(rows_of(deployment), totals.started)
        yield totals
        moved = monotonic() if totals.events > before.events else moved
        if monotonic() - moved > PATIENCE_S:
            raise ReptideError(
                f"{totals.events:,} of {total:,} events were folded, and no more for {PATIENCE_S:.0f} s: "
                "what the broker and the roles say lies beside the settings"
            )


@contextmanager
def _bars(console: Console, total: int) -> Iterator[Show]:
    """Two lines, of what was sent and of what was folded; in a log, one now and then."""
    if not console.is_terminal:
        tell = now_and_then(console.print)
        yield lambda events, totals: tell(
            lambda: f"{events:,} of {total:,} sent, {totals.events:,} folded  {said_of(totals)}"
        )
        return
    line = TextColumn("{task.description:6} {task.completed:>9,.0f} {task.fields[said]}")
    with Bar(line, console=console) as bar:
        sent, fold = (bar.add_task(name, total=total, said=f"of {total:,}") for name in ("sent", "folded"))

        def show(events: int, totals: Progress) -> None:
            """Move both lines."""
            bar.update(sent, completed=events)
            bar.update(fold, completed=totals.events, said=said_of(totals))

        yield show


def folded(table: TaskTable, started: float) -> Progress:
    """What the rows have counted since they were empty."""
    counts = table.rows["counts"].sum(axis=0)
    return Progress(
        events=int(counts.sum() - counts[Outcome.EXPIRED]),
        scored=int(counts[Outcome.SCORED]),
        alarms=int(table.rows["epoch"].sum()),
        version=int(table.rows["fast_version"].max(initial=0)),
        until_s=float(table.rows["clock_s"].max(initial=0.0)),
        loss_sums=table.rows["score_sums"].sum(axis=0).tolist(),
        started=started,
        seconds=perf_counter() - started,
    )


def write_scores(deployment: Deployment, flights: ReplayLog, out: Path) -> None:
    """Copy the topic `scores` to a file, each label at the place that it has in the file of flights."""
    place = dict(_label_places(flights))
    lines: dict[int, bytes] = {}
    positions, moved = dict[int, int](), monotonic()
    with closing(deployment.reader("scores")) as reader:
        while len(lines) < len(place):
            messages, positions = reader.read(positions, AT_ONCE, LOOK_S)
            for line in (orjson.loads(message.value or b"") for message in messages):
                line["offset"], line["partition"] = place[line["id"]], 0
                lines.setdefault(line["offset"], orjson.dumps(line))
            moved = monotonic() if messages else moved
            if monotonic() - moved > PATIENCE_S:
                raise ReptideError(f"the topic of scores holds {len(lines):,} of {len(place):,} labels")
    with scores_in(out) as scores:
        scores.append([lines[offset] for offset in sorted(lines)])


def _label_places(flights: ReplayLog) -> Iterator[tuple[Any, int]]:
    while polled := flights.poll(AT_ONCE):
        yield from ((r.id, r.offset) for part in polled for r in part.records if r.kind == Kind.LABEL)


@contextmanager
def _ended_by_signals() -> Iterator[Event]:
    """SIGTERM ends it as Ctrl-C does; and either is remembered, since an exception inside a callback may be lost."""
    asked = Event()

    def ask(number: int, frame: FrameType | None) -> None:
        """Remember, and interrupt."""
        asked.set()
        signal.default_int_handler(number, frame)

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

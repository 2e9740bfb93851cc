"""The commands around a deployment, on a real broker and Redis: what goes in comes out, and nothing else changes."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from threading import Event
from types import ModuleType
from typing import Any

import orjson
import polars as pl
import pytest
from kafka import KafkaAdminClient
from typer.testing import CliRunner, Result

from engine.types import EngineError, Kind, Outcome
from streams.assembly.deployed import Deployment
from streams.cli import serving
from streams.cli.app import app
from streams.errors import InputError, ReptideError, SettingsError, Unavailable
from streams.logs.kafka import topics as kafka_topics
from streams.logs.kafka.outputs import KafkaOutputs
from streams.logs.kafka.reader import KafkaTopicReader
from streams.logs.kafka.replay import GroupOffsets, KafkaReplay
from streams.logs.output import TOPICS
from streams.program import warm_trainer
from streams.program.outputs import silent
from streams.program.progress import Progress
from streams.program.trainer_service import TrainerService
from streams.program.worker_service import WorkerService
from streams.replay.deployed import refold
from streams.settings.tree import Settings, load_settings
from streams.stores.base import key_of
from streams.stores.memory import MemoryStore
from streams.testing.servers import Server, noida, redis_server
from tests.faults.shop import CONFIG, shop
from tests.kafka_brokers import Broker, append

DEADLINE_S = 30.0
NUMBERS = count()
SECTIONS = """
[kafka]
bootstrap = ["{broker}"]
inputs = ["{name}.events"]
session_timeout_s = 6

[redis]
url = "redis://{redis}/0"

[service]
durability_lag_s = 0
publish_every_s = 0.01
"""


@dataclass(frozen=True)
class Stream:
    """One stream of its own, with a table of observations in four portions."""

    directory: Path

    @property
    def settings(self) -> Settings:
        return load_settings(self.config, {})

    @property
    def config(self) -> Path:
        return self.directory / "shop.toml"

    @property
    def deployment(self) -> Deployment:
        return Deployment(self.settings)

    def portion(self, number: int) -> Path:
        return self.directory / f"{number}.csv"

    def command(self, *arguments: str | Path) -> Result:
        """Run a command that succeeds."""
        result = self.attempt(*arguments)
        assert result.exit_code == 0, (result.output, result.exception)
        return result

    def attempt(self, *arguments: str | Path) -> Result:
        """Run a command, with its settings last."""
        return CliRunner().invoke(app, [*map(str, arguments), str(self.config)])

    def send(self, *portions: int) -> None:
        for number in portions:
            self.command("produce", "--set", f"input.path={self.portion(number)}")

    def lines(self, output: str) -> list[dict[str, Any]]:
        """A whole output."""
        return [orjson.loads(line) for line in self.command("tail", output, "--whole").stdout.splitlines()]

    def offsets(self) -> GroupOffsets:
        deployment = self.deployment
        return GroupOffsets(deployment.connection, deployment.group, deployment.kafka.inputs)

    def table(self, *portions: int) -> pl.DataFrame:
        return pl.concat(_read(self.portion(number)) for number in portions)

    def expected(self, *portions: int) -> dict[str, tuple[int, int]]:
        """Observations and labels of each user, by a group-by."""
        found = self.table(*portions).group_by("user").agg(pl.len(), pl.col("bought").count())
        return {user: (rows, labels) for user, rows, labels in found.rows()}

    def counts(self) -> dict[str, tuple[int, int]]:
        """The same, as the rows have counted them."""
        labels = [Outcome.SCORED, Outcome.LATE, Outcome.ORPHAN]
        return {
            user: (int(row["counts"][Outcome.PREDICTED]), int(row["counts"][labels].sum()))
            for user, row in self.rows().items()
            if row["revision"]
        }

    def rows(self) -> dict[str, Any]:
        deployment = self.deployment
        users = sorted(set(self.table(0, 1, 2, 3)["user"]))
        table = deployment.store.load(deployment.engine.layout, users)
        deployment.store.close()
        return dict(zip(table.ids, table.rows, strict=True))

    def bits(self) -> dict[str, dict[str, bytes]]:
        """Every row, but for what counts its writes."""
        return {
            user: {n: row[n].tobytes() for n in row.dtype.names if n not in ("revision", "checksum")}
            for user, row in self.rows().items()
        }


def _read(path: Path) -> pl.DataFrame:
    return pl.read_csv(path, schema_overrides={"n": pl.String, "at": pl.Float64}, ignore_errors=True)


class AtTheEnd(Event):
    """Stops a worker that has nothing left to fold."""

    def __init__(self, service: Any, places: int) -> None:
        super().__init__()
        self.log, self.places, self.deadline = service.log, places, time.monotonic() + DEADLINE_S

    def is_set(self) -> bool:
        assert time.monotonic() < self.deadline, "it did not come to the end in time"
        lag = self.log.lag()
        return len(lag) == self.places and not any(lag.values())


class Published(Event):
    """Stops a trainer that has published a version."""

    def __init__(self, deployment: Deployment) -> None:
        super().__init__()
        self.versions, self.deadline = deployment.versions, time.monotonic() + DEADLINE_S

    def is_set(self) -> bool:
        assert time.monotonic() < self.deadline, "no version was published in time"
        return self.versions.current() > 0


def fold(stream: Stream) -> bytes:
    """Run a worker until it has folded everything; returns its metrics."""
    deployment = stream.deployment
    places = len(stream.offsets().read())
    producer, log = deployment.producer(*map(deployment.topic, TOPICS)), deployment.log()
    try:
        try:
            service = deployment.worker(log, producer, lambda _: None, lambda _: None)
        except ReptideError:
            log.close()
            raise
        service.run(AtTheEnd(service, places))
    finally:
        producer.close()
        deployment.store.close()
    return service.worker.telemetry.exposition()


def train(stream: Stream) -> None:
    """Run a trainer until it has published a version."""
    deployment = stream.deployment
    service: TrainerService = deployment.trainer(lambda _: None, lambda _: None)
    service.run(Published(deployment))
    deployment.store.close()


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    directory = tmp_path_factory.mktemp("servers")
    with noida(directory / "broker") as broker, redis_server(directory / "redis") as redis:
        yield broker, redis


@pytest.fixture
def stream(servers: tuple[Server, Server], tmp_path: Path) -> Stream:
    """Topics of three partitions, and nothing sent yet."""
    broker, redis = servers
    shop(tmp_path, 400)
    table = pl.read_csv(tmp_path / "events.csv").with_row_index("n")
    for number in range(4):
        table[100 * number : 100 * (number + 1)].write_csv(tmp_path / f"{number}.csv")
    name = f"shop{next(NUMBERS)}"
    sections = SECTIONS.format(name=name, broker=broker.address, redis=redis.address)
    config = CONFIG.replace('time = "at"', 'time = "at"\nid = "n"')
    (tmp_path / "shop.toml").write_text(f'stream = "{name}"\n{config}{sections}')
    stream = Stream(tmp_path)
    stream.command("topics", "create", "--partitions", "3")
    return stream


def test_rows_count_what_was_sent_and_every_label_has_its_score(stream: Stream) -> None:
    expected = stream.expected(0)
    with stream.portion(0).open("a") as table:
        table.write("9000,user 0/{},soon,0.1,0.2,,\n")
    stream.send(0)
    fold(stream)
    assert stream.counts() == expected
    scores = Counter(score["task"] for score in stream.lines("scores"))
    assert scores == {user: labels for user, (_, labels) in expected.items()}
    described = orjson.loads(stream.command("inspect", "user 1/{}").stdout)
    assert described["known"]
    assert described["outcomes"]["predicted"] == expected["user 1/{}"][0]
    (letter,) = stream.lines("dead-letter")
    assert orjson.loads(letter["value"])["time"] == "soon"
    assert letter["reason"]


def test_while_events_are_sent_their_speed_is_that_of_the_clock(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    monkeypatch.setattr(
        serving, "progress_bar", lambda *_: nullcontext(lambda n, totals: told.append((n, totals)))
    )
    stream.send(0)
    assert told
    for events, totals in told:
        assert totals.events == events
        assert 0 < totals.seconds < DEADLINE_S


def test_a_broker_that_does_not_answer_at_first_ends_neither_produce_nor_a_worker(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, answers = Deployment.producer, iter([False, True, False, True])

    def producer(deployment: Deployment, *topics: str) -> KafkaOutputs:
        if not next(answers):
            raise Unavailable("no broker answers")
        return made(deployment, *topics)

    def run(service: WorkerService, _: Event) -> Progress:
        service.log.close()
        return service.progress

    monkeypatch.setattr(Deployment, "producer", producer)
    monkeypatch.setattr(WorkerService, "run", run)
    stream.send(0)
    stream.command("worker")
    assert list(answers) == []


@pytest.mark.parametrize(
    ("command", "owner", "asked"),
    [
        ("redrive {letters}", Deployment, "producer"),
        ("tail scores --whole", Deployment, "reader"),
        ("topics create", kafka_topics, "create"),
        ("topics check", kafka_topics, "check"),
    ],
)
def test_a_broker_that_does_not_answer_at_first_ends_no_command(
    stream: Stream,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    owner: type[Deployment] | ModuleType,
    asked: str,
) -> None:
    answered, answers = getattr(owner, asked), iter([False, True])

    def ask(*arguments: Any) -> Any:
        if not next(answers):
            raise Unavailable("no broker answers")
        return answered(*arguments)

    monkeypatch.setattr(owner, asked, ask)
    letters = stream.directory / "letters.jsonl"
    letters.touch()
    stream.command(*command.format(letters=letters).split())
    assert list(answers) == []


def test_a_dead_letter_repaired_and_sent_back_is_folded(stream: Stream) -> None:
    expected = stream.expected(0)
    content = stream.portion(0).read_text().replace("user 1/{},", "user 1/{},soon ")
    stream.portion(0).write_text(content)
    stream.send(0)
    fold(stream)
    assert stream.counts()["user 1/{}"][0] == 0, "its labels came, its observations were refused"
    letters = stream.command("tail", "dead-letter", "--whole").stdout
    repaired = stream.directory / "repaired.jsonl"
    repaired.write_text(letters.replace("soon ", ""))
    stream.command("redrive", repaired)
    fold(stream)
    assert stream.counts() == expected


@pytest.mark.parametrize(
    ("spoiled", "said"),
    [
        (b"no letter", "line 2 is no dead letter"),
        (
            b'{"origin":"other partition 0 offset 1","headers":[],"key":"k","value":"v"}',
            "line 2 came from other",
        ),
    ],
)
def test_of_letters_that_cannot_all_be_read_none_is_sent(stream: Stream, spoiled: bytes, said: str) -> None:
    assert stream.settings.kafka
    topic = stream.settings.kafka.inputs[0]
    letter = {"origin": f"{topic} partition 0 offset 0", "headers": [], "key": "k", "value": "v"}
    letters = stream.directory / "letters.jsonl"
    letters.write_bytes(orjson.dumps(letter) + b"\n" + spoiled)
    refused = stream.attempt("redrive", letters)
    assert isinstance(refused.exception, InputError)
    assert str(refused.exception).startswith(said)
    assert set(stream.offsets().end().values()) == {0}


def test_letters_that_are_not_there_are_refused_in_a_sentence(stream: Stream) -> None:
    refused = stream.attempt("redrive", stream.directory / "none.jsonl")
    assert isinstance(refused.exception, InputError)
    assert "none.jsonl cannot be read: No such file" in str(refused.exception)


def test_rebuilt_rows_are_what_they_were_and_so_are_the_offsets(stream: Stream) -> None:
    stream.send(0)
    fold(stream)
    train(stream)
    stream.send(1)
    fold(stream)
    rows, offsets, said = stream.bits(), stream.offsets().read(), stream.lines("scores")
    assert {score["version"] for score in said if score["outcome"] == "scored"} == {0, 1}
    damage(stream)
    assert stream.bits() != rows
    stream.command("rebuild")
    assert stream.bits() == rows
    assert stream.offsets().read() == offsets
    assert stream.lines("scores") == said, "nothing is said again"


def damage(stream: Stream) -> None:
    """Lose a row, and write another one wrong."""
    deployment = stream.deployment
    table = deployment.store.load(deployment.engine.layout, ["user 0/{}", "user 1/{}"])
    deployment.store.clear()
    table.rows["counts"] += 1
    table.rows["revision"] = 0
    deployment.store.swap(table)
    deployment.store.close()


def test_while_a_worker_runs_no_row_is_touched(stream: Stream) -> None:
    stream.send(0)
    fold(stream)
    rows, log = stream.bits(), stream.deployment.log()
    deadline = time.monotonic() + DEADLINE_S
    while not log.assigned():
        assert time.monotonic() < deadline, "it did not join the group in time"
        log.poll(1, 0.1)
    refused = stream.attempt("rebuild")
    log.close()
    assert isinstance(refused.exception, InputError)
    assert "has members; stop all workers" in str(refused.exception)
    assert stream.bits() == rows


@pytest.mark.parametrize("partitions", [4, 6])
def test_tasks_that_moved_to_added_partitions_are_refused_until_a_rebuild(
    stream: Stream, partitions: int
) -> None:
    stream.send(0)
    fold(stream)
    stream.send(1)  # still in the old partitions, and not folded when the new ones begin
    add_partitions(stream, partitions)
    stream.send(2)
    with pytest.raises(EngineError, match="another partition; run `reptide rebuild`"):
        fold(stream)
    stream.command("rebuild")
    assert stream.counts() == stream.expected(0, 1, 2)
    labels = stream.table(0, 1, 2).filter(pl.col("bought").is_not_null())
    assert {score["id"] for score in stream.lines("scores")} == set(labels["n"])
    stream.send(3)
    fold(stream)
    assert stream.counts() == stream.expected(0, 1, 2, 3)


@pytest.mark.parametrize("partitions", [4, 6])
def test_the_topics_are_read_again_in_the_order_of_each_task(stream: Stream, partitions: int) -> None:
    stream.send(0)
    add_partitions(stream, partitions)
    stream.send(1)
    deployment = stream.deployment
    replay = KafkaReplay(
        deployment.connection, deployment.kafka.inputs, deployment.envelope, stream.offsets().end()
    )
    seen: dict[str, list[int]] = {}
    while polled := replay.poll(24):
        tasks = [{record.task for record in part.records} for part in polled]
        assert sum(map(len, tasks)) == len(set().union(*tasks)), "a batch holds no task in two partitions"
        for record in (r for part in polled for r in part.records if r.kind == Kind.OBSERVATION):
            seen.setdefault(record.task, []).append(record.id)
    replay.close()
    sent = stream.table(0, 1).group_by("user", maintain_order=True).agg("n")
    assert seen == dict(sent.rows())


def test_tasks_without_an_event_since_partitions_were_added_go_on_where_their_next_one_comes(
    stream: Stream,
) -> None:
    stream.send(0)
    fold(stream)
    add_partitions(stream, 6)
    stream.command("rebuild")
    assert stream.counts() == stream.expected(0)
    stream.send(1)
    fold(stream)
    assert stream.counts() == stream.expected(0, 1)
    assert stream.lines("dead-letter") == []


@pytest.mark.parametrize(("comes", "key"), [("first", None), ("last", b"somebody else")])
def test_an_event_that_strayed_into_another_partition_is_set_aside_and_claims_no_row(
    stream: Stream, key: bytes | None, comes: str
) -> None:
    portions = (0, 1) if comes == "last" else (1,)
    for portion in portions[:-1]:
        stream.send(portion)
    strayed = stray(stream, key)
    stream.send(portions[-1])
    telemetry = fold(stream).decode()
    assert stream.counts() == stream.expected(*portions)
    assert 'reptide_dead_letters_total{reason="wrong_partition"} 3.0' in telemetry
    letters = stream.lines("dead-letter")
    assert [(one["reason"], one["key"], one["value"].encode()) for one in letters] == [
        ("wrong_partition", None if key is None else key.decode(), strayed)
    ] * 3
    rows = stream.bits()
    stream.command("rebuild")
    assert stream.bits() == rows
    stream.send(2)
    fold(stream)
    assert stream.counts() == stream.expected(*portions, 2)


def stray(stream: Stream, key: bytes | None) -> bytes:
    """An event of a task, in every partition, and so in two that are not its own; returns its value."""
    event = {"task": "user 1/{}", "id": "stray", "time": 1.0, "features": {"a": 0.5, "b": 0.5}}
    [topic] = stream.deployment.kafka.inputs
    for partition in range(3):
        append(
            Broker(stream.deployment.connection.servers, None),
            topic,
            [(key, orjson.dumps(event))],
            partition=partition,
        )
    return orjson.dumps(event)


def test_events_that_strayed_are_brought_home_by_sending_them_back(stream: Stream) -> None:
    stream.send(0)
    strayed = stray(stream, None)
    fold(stream)
    letters = stream.directory / "letters.jsonl"
    letters.write_text(stream.command("tail", "dead-letter", "--whole").stdout)
    stream.command("redrive", letters)
    before = stream.counts()["user 1/{}"][0]
    fold(stream)
    assert stream.counts()["user 1/{}"][0] == before + 1, "the same event three times is one"
    predicted = [one for one in stream.lines("predictions") if one["id"] == orjson.loads(strayed)["id"]]
    assert [one["outcome"] for one in predicted] == ["predicted"] + 2 * ["repeated_observation"]


def test_events_of_a_damaged_row_are_set_aside_as_they_came_and_all_others_go_on(stream: Stream) -> None:
    stream.send(0)
    fold(stream)
    deployment = stream.deployment
    key = f"{deployment.store._rows}{key_of('user 1/{}')}"
    deployment.server.ask(("SETRANGE", key, 100, b"?"))
    stream.send(1)
    telemetry = fold(stream).decode()
    sent = [one for one in messages(stream) if one[0] == b"user 1/{}"]
    letters = stream.lines("dead-letter")
    assert {one["reason"] for one in letters} == {"damaged_row"}
    assert [one["value"].encode() for one in letters] == [value for _, value in sent[-len(letters) :]]
    assert f'reptide_dead_letters_total{{reason="damaged_row"}} {len(letters)}.0' in telemetry
    expected = stream.expected(0, 1)
    assert {score["task"] for score in stream.lines("scores")} == set(expected)
    stream.command("rebuild")
    assert stream.counts() == expected


@pytest.mark.parametrize("client", ["kafka-python", "confluent"])
def test_of_two_workers_of_one_partition_both_are_ready_before_the_first_event(
    stream: Stream, client: str
) -> None:
    config = stream.config.read_text().replace(".events", f".{client}")
    stream.config.write_text(config.replace("[kafka]", f'[kafka]\nclient = "{client}"'))
    stream.command("topics", "create", "--partitions", "1")
    deployment = stream.deployment
    producer = deployment.producer(*map(deployment.topic, TOPICS))
    services = [
        deployment.worker(deployment.log(), producer, lambda _: None, lambda _: None) for _ in range(2)
    ]
    deadline = time.monotonic() + DEADLINE_S
    while sum(len(service.log.assigned()) for service in services) != 1 or any(
        service.health.unready() for service in services
    ):
        assert time.monotonic() < deadline, [service.health.unready() for service in services]
        for service in services:
            service.log.poll(1, 0.1)
            service._report()
    for service in services:
        service.log.close()
    producer.close()
    deployment.store.close()


def messages(stream: Stream) -> list[tuple[bytes | None, bytes | None]]:
    """Keys and values of the input, partition by partition."""
    [topic] = stream.deployment.kafka.inputs
    reader, found = KafkaTopicReader(stream.deployment.connection, topic), list[Any]()
    positions: dict[int, int] = {}
    end = reader.end()
    while positions != end:
        some, positions = reader.read(positions, 1000, 0.2)
        found += some
    reader.close()
    return [(one.key, one.value) for one in sorted(found, key=lambda one: (one.partition, one.offset))]


def add_partitions(stream: Stream, partitions: int) -> None:
    admin = KafkaAdminClient(bootstrap_servers=stream.deployment.connection.servers)
    assert stream.settings.kafka
    admin.create_partitions({stream.settings.kafka.inputs[0]: partitions})
    admin.close()


def test_a_forgotten_task_stays_forgotten_and_the_others_go_on(stream: Stream) -> None:
    stream.send(0)
    fold(stream)
    stream.command("forget", "user 1/{}")
    assert "no task 'user 1/{}' is known" in str(stream.attempt("inspect", "user 1/{}").exception)
    stream.send(1)
    fold(stream)
    expected = stream.expected(0, 1)
    del expected["user 1/{}"]
    assert stream.counts() == expected
    assert stream.lines("dead-letter") == []


def test_a_message_without_a_value_forgets_its_task_where_it_lies_and_again_in_a_refold_and_a_rebuild(
    stream: Stream,
) -> None:
    stream.config.write_text(
        stream.config.read_text().replace("session_timeout_s", 'tombstones = "forget"\nsession_timeout_s')
    )
    stream.send(0)
    assert stream.settings.kafka
    (topic,) = stream.settings.kafka.inputs
    append(
        Broker(stream.deployment.connection.servers, None),
        topic,
        [(b"user 1/{}", None)],
    )
    stream.send(1)
    assert b"reptide_tasks_forgotten_total 1.0" in fold(stream)
    expected = stream.expected(0, 1)
    del expected["user 1/{}"]
    assert stream.counts() == expected
    said = [line["id"] for line in stream.lines("predictions") if line["task"] == "user 1/{}"]
    assert said == stream.table(0).filter(pl.col("user") == "user 1/{}")["n"].to_list()
    assert stream.lines("dead-letter") == []
    deployment, again = stream.deployment, MemoryStore()
    again.record(deployment.store.adoptions())
    refold(deployment, stream.offsets().read(), again, silent(deployment.spec.problem), lambda _: None)
    assert set(again.rows) == set(deployment.store.tasks()) == set(map(key_of, expected))
    rows = stream.bits()
    stream.command("rebuild")
    assert stream.bits() == rows


def test_topics_that_were_created_are_as_they_should_be(stream: Stream) -> None:
    stream.send(0)
    assert "the topics are as they should be" in stream.command("topics", "check").stderr


def test_a_missing_topic_is_found_with_exit_status_1(stream: Stream) -> None:
    found = stream.attempt("topics", "check", "--set", 'kafka.inputs=["elsewhere"]')
    assert found.exit_code == 1
    assert "there is no topic elsewhere" in " ".join(found.stderr.split())


NEEDS = {
    "kafka": ["worker", "trainer", "produce", "tail scores", "redrive -", "topics create", "topics check"],
    "redis": ["worker", "trainer", "topics check", "rebuild"],
}


@pytest.mark.parametrize(
    ("section", "command"), [(section, command) for section, found in NEEDS.items() for command in found]
)
def test_without_its_section_a_command_names_it(tmp_path: Path, section: Any, command: Any) -> None:
    shop(tmp_path)
    there = SECTIONS.format(name="shop", broker="127.0.0.1:1", redis="127.0.0.1:1")
    start = there.index(f"[{section}]")
    config = tmp_path / "shop.toml"
    config.write_text(CONFIG + there[:start] + there[there.index("\n\n", start) :])
    refused = CliRunner().invoke(app, [*command.split(), str(config)])
    assert isinstance(refused.exception, SettingsError), refused.exception
    assert section in str(refused.exception)


class Parts:
    """What a worker is made of, without servers; notes what is done with it."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        shop(directory)
        self.config, self.done = directory / "shop.toml", list[str]()
        self.config.write_text(
            CONFIG + SECTIONS.format(name="shop", broker="127.0.0.1:1", redis="127.0.0.1:1")
        )
        self.when_warm: Callable[[], None] = lambda: None
        monkeypatch.setattr(serving, "check_room", lambda _: None)
        monkeypatch.setattr(serving, "warm_up", self.warm_up)
        monkeypatch.setattr(Deployment, "producer", lambda *_: self)
        monkeypatch.setattr(Deployment, "store", self)
        monkeypatch.setattr(Deployment, "log", self.join)

    def warm_up(self, _: object) -> None:
        self.done.append("warm")
        self.when_warm()

    def join(self) -> None:
        self.done.append("joined")
        raise InputError("enough")

    def close(self) -> None:
        self.done.append("closed")

    def run(self) -> Result:
        return CliRunner().invoke(app, ["worker", str(self.config)])


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Parts:
    return Parts(tmp_path, monkeypatch)


def test_a_worker_is_warm_before_it_joins_its_group(parts: Parts) -> None:
    parts.run()
    assert parts.done == ["warm", "joined", "closed", "closed"]


def test_a_worker_that_is_told_to_stop_while_it_starts_joins_no_group(parts: Parts) -> None:
    parts.when_warm = lambda: signal.raise_signal(signal.SIGTERM)
    result = parts.run()
    assert parts.done == ["warm", "closed", "closed"]
    assert (result.exit_code, result.output) == (0, "stopped after 0 events\n")


def test_a_trainer_is_warm_before_it_reads(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    class Service:
        trainer = health = telemetry = None

        def run(self, _: Event) -> None:
            parts.done.append("read")

    monkeypatch.setattr(warm_trainer, "warm_up", parts.warm_up)
    monkeypatch.setattr(Deployment, "trainer", lambda *_: Service())
    CliRunner().invoke(app, ["trainer", str(parts.config)])
    assert parts.done == ["warm", "read", "closed"]

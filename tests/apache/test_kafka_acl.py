"""The ACLs of Kafka that docs/operations.md writes out: each role runs with its own, and is told what it lacks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from streams.cli.app import app
from streams.errors import InputError
from streams.program.trainer_service import TrainerService
from streams.program.worker_service import WorkerService
from streams.testing.servers import Server, redis_server
from tests.apache.secured import ROLES, SECRET, Rule, Secured
from tests.end_to_end.test_deployment_commands import SECTIONS, AtTheEnd, Published, Stream
from tests.faults.shop import CONFIG, shop

OPERATIONS = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
LINES = re.findall(r"```kafka-acls\n(.*?)```", OPERATIONS, re.DOTALL)[0].splitlines()
NUMBERS = count()
OPERATIONS_OF_KAFKA = {"DescribeConfigs": "DESCRIBE_CONFIGS"}


def rules(stream: str, role: str, but: str = "") -> list[Rule]:
    """The lines of a role, for another stream than the page's; without one of them."""
    return [
        _rule(re.sub(r"\bshop\b", stream, line))
        for line in LINES
        if f":reptide-{role} " in line and line != but
    ]


def _rule(line: str) -> Rule:
    words = line.split()
    told = dict(zip(words[::2], words[1::2], strict=True))
    kind = "TOPIC" if "--topic" in told else "GROUP"
    name = told[f"--{kind.lower()}"]
    pattern = told.get("--resource-pattern-type", "literal").upper()
    operation = OPERATIONS_OF_KAFKA.get(told["--operation"], told["--operation"].upper())
    return Rule(told["--allow-principal"], operation, kind, name, pattern)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@dataclass(frozen=True)
class Roles(Stream):
    """A stream whose commands run in this process as the user of a role, or as one who may do everything."""

    broker: Secured

    @property
    def name(self) -> str:
        return self.settings.stream

    def run(self, role: str, *arguments: object, client: str = "kafka-python") -> None:
        """Run a command as the user of a role; raises why it ended otherwise than it should."""
        login = self.broker.plain(f"reptide-{role}")
        environment = {
            "REPTIDE_KAFKA__BOOTSTRAP": f'["{self.broker.kafka.address_of("LOGIN")}"]',
            "REPTIDE_KAFKA__CLIENT": client,
            **{f"REPTIDE_KAFKA__SECURITY__{name.upper()}": value for name, value in login.items()},
        }
        result = CliRunner().invoke(app, [*map(str, arguments)], env=environment)
        if result.exception is not None:
            raise result.exception
        if "allow DescribeConfigs" in result.output:  # what is not known ends no check
            raise InputError(result.output)

    def prepare(self, role: str) -> None:
        """Do what comes before a role."""
        if role != "operator":
            self.command("topics", "create", "--partitions", "3")
            if role != "producer":
                self.send(0)
            if role in ("trainer", "reader"):
                self.command("worker")

    def work(self, role: str, client: str = "kafka-python") -> None:
        """Do all that a role does."""
        if role == "producer":
            self.run(role, "produce", self.config, "--set", f"input.path={self.portion(0)}", client=client)
        elif role in ("worker", "trainer"):
            self.run(role, role, self.config, client=client)
        elif role == "reader":
            self.run(role, "tail", "scores", "--whole", self.config)
        else:
            self.operate()

    def operate(self) -> None:
        self.run("operator", "topics", "create", "--partitions", 3, self.config)
        self.send(0)
        self.command("worker")
        self.run("operator", "topics", "check", self.config)
        self.run("operator", "snapshot", self.config, self.directory / "snapshot")
        self.run("operator", "rebuild", self.config)
        self.run("operator", "restore", self.config, self.directory / "snapshot")


@pytest.fixture
def stream(
    broker: Secured, redis: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Roles]:
    shop(tmp_path, 200)
    table = pl.read_csv(tmp_path / "events.csv").with_row_index("n")
    table.write_csv(tmp_path / "0.csv")
    with (tmp_path / "0.csv").open("a") as file:
        file.write("9000,user 0/{},soon,0.1,0.2,,\n")  # a dead letter
    name = f"shop{next(NUMBERS)}x"
    sections = SECTIONS.format(name=name, broker=broker.kafka.address, redis=redis.address)
    config = CONFIG.replace('time = "at"', 'time = "at"\nid = "n"')
    sections = sections.replace(f"{name}.events", f"{name}-events")
    (tmp_path / "shop.toml").write_text(f'stream = "{name}"\n{config}{sections}')
    made = Roles(tmp_path, broker)
    work, train = WorkerService.run, TrainerService.run
    monkeypatch.setattr(WorkerService, "run", lambda role, _: work(role, AtTheEnd(role, 3)))
    monkeypatch.setattr(TrainerService, "run", lambda role, _: train(role, Published(made.deployment)))
    yield made
    broker.drop_rules()


EACH = [(role, "kafka-python") for role in ROLES] + [("worker", "confluent"), ("producer", "confluent")]


@pytest.mark.parametrize(("role", "client"), EACH)
def test_each_role_does_its_work_with_what_it_is_allowed(role: str, client: str, stream: Roles) -> None:
    stream.prepare(role)
    stream.broker.set_rules(rules(stream.name, role))
    stream.work(role, client)


@pytest.mark.parametrize("line", LINES)
def test_each_role_needs_each_of_its_lines(line: str, stream: Roles) -> None:
    role = line.split()[1].removeprefix("User:reptide-")
    stream.prepare(role)
    if left := rules(stream.name, role, but=line):
        stream.broker.set_rules(left)
    with pytest.raises(InputError, match=f"does not let user reptide-{role} |allow DescribeConfigs on"):
        stream.work(role)


DENIED = [
    ("worker", "READ", "shop-events", "Read topic shop-events"),
    ("worker", "DESCRIBE", "shop-events", "Describe topic shop-events"),
    ("worker", "READ", "", "Read group shop-"),
    ("worker", "WRITE", "shop.scores", "Write topic shop.scores"),
    ("worker", "WRITE", "shop.dead-letter", "Write topic shop.dead-letter"),
    ("worker", "WRITE", "*", "Write any topic"),
    ("producer", "DESCRIBE", "shop-events", "Describe topic shop-events"),
    ("producer", "WRITE", "shop-events", "Write any topic"),
    ("trainer", "READ", "shop.episodes", "Read topic shop.episodes"),
    ("reader", "READ", "shop.scores", "Read topic shop.scores"),
    ("operator", "CREATE", "shop.drifts", "Create topic shop.drifts"),
    ("operator", "READ", "shop-events", "Read topic shop-events"),
]  # fmt: skip
"""Role, what it may not do on which resource (the group where none is named), and what it is told."""


@pytest.mark.parametrize(
    ("role", "operation", "resource", "told", "client"),
    [
        (*case, client)
        for case in DENIED
        for client in ("kafka-python", "confluent")
        if client == "kafka-python" or case[0] in ("worker", "producer")
    ],
)
def test_what_one_rule_forbids_is_named_with_its_resource(
    role: str, operation: str, resource: str, told: str, client: str, stream: Roles
) -> None:
    stream.prepare(role)
    name = resource.replace("shop", stream.name) or stream.deployment.group
    forbidden = Rule(
        f"User:reptide-{role}", operation, "TOPIC" if resource else "GROUP", name, permission="DENY"
    )
    stream.broker.set_rules([*rules(stream.name, role), forbidden])
    with pytest.raises(InputError) as caught:
        stream.work(role, client)
    servers, word = stream.broker.kafka.address_of("LOGIN"), told.split()[0]
    said = told.replace("shop", stream.name)
    assert str(caught.value).startswith(f"{servers} does not let user reptide-{role} {said}")
    assert f"`kafka-acls --add --operation {word}`" in str(caught.value)
    assert SECRET not in str(caught.value)

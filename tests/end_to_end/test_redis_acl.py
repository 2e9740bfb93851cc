"""The users of Redis that docs/operations.md writes out: each command runs as its own, which may do no more."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import redis
from typer.testing import CliRunner

from streams.cli.app import app
from streams.errors import StoreError
from streams.events.record import SourcePosition
from streams.program import pruning
from streams.program.pruning import prune
from streams.program.trainer_service import TrainerService
from streams.program.worker_service import WorkerService
from streams.testing.servers import Server, noida, redis_server
from tests.end_to_end.test_deployment_commands import AtTheEnd, Published, Stream, stream
from tests.redis_servers import Cluster, redis_cluster
from tests.redis_users import ON_CLUSTER, TO_FORGET, USERS, User

__all__ = ["redis_cluster", "stream"]  # fixtures

NOWHERE = "redis://127.0.0.1:1/0"
TASK = "user 1/{}"
LOGIN = {"hello", "auth", "client"}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    directory = tmp_path_factory.mktemp("servers")
    with noida(directory / "broker") as broker, redis_server(directory / "redis") as server:
        yield broker, server


class Deployed:
    """A stream whose commands run in this process, each as a user of Redis."""

    def __init__(self, stream: Stream, url: str, ports: list[int], more: list[str]) -> None:
        self.stream, self.url, self.more = stream, url, more
        self.nodes = [redis.Redis(port=port) for port in ports]
        for node in self.nodes:
            for user in USERS.values():
                user.grant(node, stream.settings.stream, more)
        config = stream.config.read_text().replace("[target]\n", "[target]\nreserve = 4\n")
        cluster = f"cluster = {'true' if more else 'false'}"
        stream.config.write_text(config.replace("[redis]\n", f"[redis]\nttl_s = 1000\n{cluster}\n"))

    def be(self, url: str) -> None:
        """Let the settings name Redis so."""
        config = self.stream.config.read_text()
        self.stream.config.write_text(re.sub(r'url = ".*"', f'url = "{url}"', config))

    def runs(self, *arguments: object) -> None:
        """Run a command that succeeds."""
        result = CliRunner().invoke(app, [*map(str, arguments)])
        assert result.exit_code == 0, (result.output, result.exception)

    def asked_for(self, user: User, run: Callable[[], object]) -> set[str]:
        """The commands that servers ran meanwhile for a user, without subcommands."""
        self.be(user.url(self.url))
        for node in self.nodes:
            node.config_resetstat()
        run()
        calls: Counter[str] = Counter()
        for node in self.nodes:
            for name, told in node.info("commandstats").items():
                calls[name.removeprefix("cmdstat_").partition("|")[0]] += told["calls"]
            calls["config"] -= 1  # the reset itself
        return {name for name, number in calls.items() if number > 0} - LOGIN

    def let_rows_end_soon(self) -> None:
        """So that who reads one to write it lets it live on."""
        for node in self.nodes:
            for key in node.scan_iter("reptide:*:t:*"):
                node.expire(key, 100)

    def read_rows_that_end_soon(self) -> None:
        """What a worker does, and a rebuild that takes long; and what it does where rows do not end."""
        deployment = self.stream.deployment
        deployment.store.load(deployment.engine.layout, [TASK])
        deployment.store.ttl_s = 0
        deployment.store.load(deployment.engine.layout, [TASK])
        deployment.store.close()

    def remind(self) -> None:
        """What a worker does after Redis was restarted."""
        deployment = self.stream.deployment
        deployment.store.adopt([SourcePosition(1, 0, 0)], 0)
        deployment.store.remind()
        deployment.store.close()

    def prune(self) -> None:
        """What a trainer does every now and then."""
        deployment = self.stream.deployment
        assert prune(deployment.store, deployment.versions, 0.0).cells
        deployment.store.close()

    def operate(self) -> None:
        """Every command of an operator, but for the reader's."""
        config, directory = self.stream.config, self.stream.directory
        self.read_rows_that_end_soon()
        self.runs("rebuild", config)
        self.runs("rebuild", "--task", TASK, config)
        self.runs("rollback", 1, config)
        self.runs("forget", TASK, config, "--set", "redis.tombstone_s=0.001")
        self.runs("forget", TASK, config)
        self.runs("restore", config, directory / "snapshot")
        self.runs("rebuild", "--by-workers", config)

    def read(self) -> None:
        """Every command of a reader."""
        self.runs("inspect", TASK, self.stream.config)
        self.runs("snapshot", self.stream.config, self.stream.directory / "snapshot")


@pytest.fixture(params=["a server", "a cluster"])
def deployed(
    request: pytest.FixtureRequest,
    stream: Stream,
    servers: tuple[Server, Server],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Deployed]:
    work, train = WorkerService.run, TrainerService.run
    monkeypatch.setattr(WorkerService, "run", lambda role, _: work(role, AtTheEnd(role, 3)))
    monkeypatch.setattr(TrainerService, "run", lambda role, _: train(role, Published(stream.deployment)))
    if request.param == "a server":
        made = Deployed(stream, f"redis://{servers[1].address}/0", [servers[1].port], [])
    else:
        cluster: Cluster = request.getfixturevalue("redis_cluster")
        made = Deployed(stream, cluster.url, [node.port for node in cluster.nodes], ON_CLUSTER)
    for node in made.nodes:
        node.config_set("appendonly", "yes")
    yield made
    for node in made.nodes:
        node.config_set("appendonly", "no")
        node.close()


def test_every_role_runs_as_its_own_user_which_may_do_nothing_else(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, config = deployed.stream, deployed.stream.config
    worker, trainer, reader, operator = (
        USERS[f"reptide-{role}"] for role in ("worker", "trainer", "reader", "operator")
    )
    trained = deployed.asked_for(trainer, lambda: stream.deployment.versions)  # before any worker
    stream.send(0)
    worked = deployed.asked_for(worker, lambda: deployed.runs("worker", config))
    trained |= deployed.asked_for(trainer, lambda: deployed.runs("trainer", config))
    stream.send(1)
    worked |= deployed.asked_for(worker, lambda: deployed.runs("worker", config))
    deployed.let_rows_end_soon()
    worked |= deployed.asked_for(worker, deployed.read_rows_that_end_soon)
    worked |= deployed.asked_for(worker, deployed.remind)
    read = deployed.asked_for(reader, deployed.read)
    deployed.let_rows_end_soon()
    operated = read | deployed.asked_for(operator, deployed.operate)
    for name in ("FRESH", "RECENT", "MOST_CELLS"):
        monkeypatch.setattr(pruning, name, 0)
    trained |= deployed.asked_for(trainer, deployed.prune)
    cluster = {rule[1:].partition("|")[0] for rule in ON_CLUSTER} if len(deployed.nodes) > 1 else set()
    for user, used in ((worker, worked), (trainer, trained), (reader, read), (operator, operated)):
        assert used == user.commands() | cluster, user.name


def test_the_trainer_sees_no_row_and_the_reader_changes_none(deployed: Deployed) -> None:
    stream = deployed.stream
    stream.send(0)
    deployed.be(USERS["reptide-worker"].url(deployed.url))
    deployed.runs("worker", stream.config)
    deployed.be(USERS["reptide-trainer"].url(deployed.url))
    deployment = stream.deployment
    keys = f"reptide:{stream.settings.stream}:*"
    with pytest.raises(
        StoreError, match=re.escape(f"does not let user reptide-trainer use the keys {keys}; allow")
    ):
        deployment.server.ask(
            ("GET", f"reptide:{stream.settings.stream}:{deployment.engine.layout.fingerprint:016x}:t:ann")
        )
    deployed.be(USERS["reptide-reader"].url(deployed.url))
    refused = stream.attempt("forget", TASK)
    assert str(refused.exception).startswith(
        f"Redis at {deployment.server.address} does not let user reptide-reader run HS"
    )


def test_a_worker_that_forgets_tasks_needs_what_the_page_adds(deployed: Deployed) -> None:
    stream, worker = deployed.stream, USERS["reptide-worker"]
    for node in deployed.nodes:
        worker.grant(node, stream.settings.stream, [*TO_FORGET, *deployed.more])
    deployed.be(worker.url(deployed.url))
    deployment = stream.deployment
    asked = deployed.asked_for(
        worker, lambda: [deployment.store.forget({TASK}, ttl_s) for ttl_s in (1e-9, 60)]
    )
    deployment.store.close()
    assert {rule[1:] for rule in TO_FORGET} == asked - worker.commands() - {"cluster", "command"}


def test_topics_messages_and_dead_letters_take_no_redis(stream: Stream) -> None:
    letters = stream.directory / "letters.jsonl"
    letters.write_text("")
    text = stream.config.read_text()
    stream.config.write_text(re.sub(r'url = ".*"', f'url = "{NOWHERE}"', text))
    stream.send(0)
    stream.command("topics", "create")
    stream.command("topics", "check")
    stream.command("tail", "dead-letter", "--whole")
    stream.command("redrive", letters)

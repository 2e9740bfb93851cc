"""The loop of a worker: servers that go away, being told to stop, and batches that last as long as they should."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from engine.outer.fit import start
from streams.assembly.deployed import Deployment
from streams.errors import Forgot, Unavailable
from streams.logs.memory import MemoryLog
from streams.program import batch_limit, worker_service
from streams.program.batch_limit import LATELY, SMALLEST_BATCH, BatchLimit
from streams.program.patience import STARTS_S, made
from streams.program.trainer import Trainer
from streams.program.worker_service import WorkerService
from streams.settings.tree import load_settings
from streams.watch.health import Health, HealthServer
from tests.faults.model import SPEC, World, online, stream
from tests.faults.shop import CONFIG


class Group(MemoryLog):
    """A log of one member, that tells it to stop at its end."""

    def __init__(self, world: World, stopping: Event) -> None:
        super().__init__(before=world.before)
        self.records, self.stopping = world.records, stopping
        self.waits = 0
        self.closed = False
        self.skipped: dict[tuple[int, int], int] = {}

    def poll(self, max_events: int, timeout_s: float = 0.0) -> Any:
        polled = super().poll(max_events, timeout_s)
        if not polled:
            self.stopping.set()
        return polled

    def wait(self, timeout_s: float) -> None:
        self.waits += 1

    def rewind(self) -> None:
        self.seek(self.committed())

    def assigned(self) -> set[int]:
        return {0}

    def lag(self) -> Mapping[tuple[int, int], int]:
        return {(0, 0): self.end() - self.position()}

    def close(self) -> None:
        self.closed = True


class Case:
    """A worker's service over a world in memory."""

    def __init__(
        self,
        hook: Callable[[str], None] = lambda effect: None,
        ping: Callable[[], None] = lambda: None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.stopping = Event()
        self.world = World(stream(2, 60))
        self.world.hook = hook
        self.log = Group(self.world, self.stopping)
        self.said: list[str] = []
        self.health = Health(worker_service.CONDITIONS, 60.0)
        worker = replace(self.world.program(7).worker, log=self.log)
        self.service = WorkerService(
            worker,
            self.log,
            ["events"],
            self.health,
            0.25,
            10,
            lambda progress: None,
            self.said.append,
            ping,
            check,
        )

    def run(self) -> Case:
        self.service.run(self.stopping)
        return self


def away(effect: str, times: int) -> Callable[[str], None]:
    """A server that does not answer the first attempts at an effect."""
    left = iter(range(times))

    def hook(now: str) -> None:
        if now == effect and next(left, None) is not None:
            raise Unavailable(f"{effect}: no answer")

    return hook


@pytest.fixture(scope="module")
def calm() -> Case:
    return Case().run()


@pytest.mark.parametrize("effect", ["adopt", "load", "append", "sync", "swap"])
def test_a_server_that_is_away_for_a_while_changes_nothing_but_the_time_it_takes(
    effect: str, calm: Case
) -> None:
    case = Case(away(effect, 3)).run()
    assert case.world.left() == calm.world.left()
    assert case.log.waits == 3
    assert [said for said in case.said if said.startswith("waiting")] == [f"waiting: {effect}: no answer"]
    assert case.said[-1] == "going on"


def test_a_worker_whose_store_is_away_is_alive_and_not_ready() -> None:
    seen: list[str] = []
    case = Case(away("swap", 1))
    case.log.wait = lambda timeout_s: seen.extend(case.health.unready())  # type: ignore[method-assign]
    case.run()
    assert "servers: swap: no answer" in seen
    assert case.health.unready() == case.health.stuck() == []


def test_told_to_stop_while_a_server_is_away_it_stops_and_commits_nothing_of_the_batch() -> None:
    case = Case(away("swap", 10**6))
    case.log.wait = lambda timeout_s: case.stopping.set()  # type: ignore[method-assign]
    case.run()
    assert case.log.closed
    assert case.log.committed() == 0
    assert case.world.store.rows == {}
    assert "successor" in case.said[-1]


def test_told_to_stop_it_finishes_its_batch_and_leaves_the_group() -> None:
    case = Case()
    case.service.show = lambda progress: case.stopping.set()
    case.run()
    assert case.log.closed
    assert case.log.committed() == case.log.position() == 7


def test_while_a_server_is_away_it_is_asked_less_and_less_often_up_to_once_a_second() -> None:
    case = Case(away("swap", 6))
    waited_s: list[float] = []
    case.log.wait = waited_s.append  # type: ignore[method-assign, assignment]
    case.run()
    assert waited_s == [0.25, 0.5, 1.0, 1.0, 1.0, 1.0]


def test_a_log_that_is_away_as_well_is_asked_again(calm: Case) -> None:
    case = Case(away("swap", 3))
    log_away = away("wait", 2)
    case.log.wait = lambda timeout_s: log_away("wait")  # type: ignore[method-assign]
    case.run()
    assert case.world.left() == calm.world.left()


def test_the_version_in_use_is_shown() -> None:
    case = Case()
    Trainer(SPEC, online(), case.world.meta).publish(1, start(online().learner, 0), {})
    case.run()
    assert "reptide_theta_version 1.0" in case.service.worker.telemetry.exposition().decode()


def backlogged(limit: BatchLimit, fixed_s: float, each_s: float, batches: int = 100) -> tuple[float, float]:
    """Seconds a batch and events a second, of full batches that cost so much; the first twenty are not counted."""
    events, took_s = [], []
    for _ in range(20 + batches):
        events.append(limit.events)
        took_s.append(fixed_s + each_s * limit.events)
        limit.learn(events[-1], took_s[-1])
    return sum(took_s[20:]) / batches, sum(events[20:]) / sum(took_s[20:])


@pytest.mark.parametrize("fixed_s", [0.0, 0.02, 0.1])
def test_behind_its_log_a_worker_takes_batches_that_last_as_long_as_the_budget(fixed_s: float) -> None:
    took_s, _ = backlogged(BatchLimit(0.25, 4096), fixed_s, 0.0005)
    assert took_s == pytest.approx(0.25, rel=0.05)


@pytest.mark.parametrize(("fixed_s", "each_s"), [(0.2, 0.001), (0.7, 0.0007), (0.7, 0.00005), (1.5, 0.003)])
def test_where_the_budget_does_not_cover_the_fixed_cost_half_of_the_throughput_of_large_batches_is_kept(
    fixed_s: float, each_s: float
) -> None:
    _, rate = backlogged(BatchLimit(0.25, 4096), fixed_s, each_s)
    assert rate > 0.45 * 4096 / (fixed_s + each_s * 4096)


def test_batches_that_are_not_full_limit_no_later_one() -> None:
    limit = BatchLimit(0.25, 4096)
    for events in range(1, 100):
        limit.learn(events, 0.3)
    assert limit.events == 4096


def test_the_limit_of_a_batch_moves_by_half_or_double_at_most_and_stays_within_its_bounds() -> None:
    limit = BatchLimit(0.25, 4096)
    limit.learn(4096, 1000.0)
    assert limit.events == 2048
    for _ in range(2 * LATELY):
        limit.learn(limit.events, 1.0 * limit.events)
    assert limit.events == SMALLEST_BATCH
    limit.learn(SMALLEST_BATCH, 0.0)
    assert limit.events <= 2 * SMALLEST_BATCH
    for _ in range(2 * LATELY):
        limit.learn(limit.events, 1e-6 * limit.events)
    assert limit.events == 4096


def test_a_worker_whose_batches_cost_the_same_whatever_their_size_takes_large_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case, now_s, asked = Case(), [0.0], []
    monkeypatch.setattr(worker_service, "perf_counter", lambda: now_s[0])
    monkeypatch.setattr(batch_limit, "SMALLEST_BATCH", 1)
    poll = case.log.poll

    def slow(effect: str) -> None:
        now_s[0] += effect == "load"

    def asks(max_events: int, timeout_s: float = 0.0) -> Any:
        asked.append(max_events)
        return poll(max_events, timeout_s)

    case.world.hook = slow
    monkeypatch.setattr(case.log, "poll", asks)
    case.run()
    assert asked[:4] == [7, 3, 6, 7]
    assert set(asked[4:]) == {7}


class Rolled(Group):
    """A log whose commits trail by some batches, as they do behind a store that may forget."""

    BATCHES = 3

    def __init__(self, world: World, stopping: Event) -> None:
        super().__init__(world, stopping)
        self.trail: list[Mapping[tuple[int, int], int]] = []

    def commit(self, offsets: Mapping[tuple[int, int], int]) -> None:
        self.trail.append(offsets)
        if len(self.trail) > self.BATCHES:
            super().commit(self.trail.pop(0))

    def rewind(self) -> None:
        self.trail.clear()
        super().rewind()


@pytest.mark.parametrize("at", ["ping", "load"])
def test_what_a_store_forgot_is_folded_again(at: str, calm: Case) -> None:
    """The store goes back by two batches; the worker lives on."""
    before: list[dict[str, bytes]] = []

    def forget(effect: str) -> None:
        if effect == at:
            before.append(dict(case.world.store.rows))
            if len(before) == 6:
                case.world.store.rows = before[3]
                raise Forgot("the store was restarted")

    case = Case(
        forget if at == "load" else lambda effect: None, lambda: forget("ping") if at == "ping" else None
    )
    case.log = Rolled(case.world, case.stopping)
    case.service.log = case.log
    case.service.worker = replace(case.service.worker, log=case.log)
    case.run()
    assert len(before) > 6
    left = case.world.left()
    assert left.rows == calm.world.left().rows
    assert left.lines == calm.world.left().lines
    assert case.said == ["the store was restarted; what was not committed is folded again"]


def test_a_store_that_forgot_is_reminded_of_what_was_adopted_before_anything_is_adopted_again() -> None:
    effects: list[str] = []

    def note(effect: str) -> None:
        effects.append(effect)
        if effect == "swap" and effects.count("swap") == 6:
            raise Forgot("the store was restarted")

    case = Case(note)
    case.run()
    assert effects.count("remind") == 1
    after = effects[effects.index("remind") - 1 :]
    assert after[0] == "swap"
    assert "adopt" in after
    assert case.log.waits == 1


# Probes of a worker


def probed(case: Case, path: str) -> tuple[int, str]:
    """What the real endpoint answers."""
    with HealthServer(case.health, case.service.worker.telemetry.exposition, port=0) as server:
        address = f"http://127.0.0.1:{server.port}{path}"
        try:
            with urlopen(address, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as refusal:
            with refusal:
                return refusal.code, refusal.read().decode()


@pytest.mark.parametrize("partitions", [{0}, set()])
def test_a_worker_without_events_or_without_partitions_is_ready(partitions: Any) -> None:
    case = Case()
    case.world.records.clear()
    case.log.assigned = lambda: partitions  # type: ignore[method-assign]
    case.log.lag = lambda: {(0, partition): 0 for partition in partitions}  # type: ignore[method-assign]
    assert probed(case, "/readyz")[0] == 503
    case.run()
    assert probed(case, "/readyz") == (200, "ok\n")


def test_a_worker_that_does_not_know_how_far_behind_it_is_is_not_ready() -> None:
    case = Case()
    case.log.lag = dict  # type: ignore[method-assign]
    case.run()
    status, text = probed(case, "/readyz")
    assert status == 503
    assert text == "lag: 0 events behind in 0 partitions, and how far in 1 more is not known yet\n"


def test_a_worker_too_far_behind_is_not_ready() -> None:
    case = Case()
    case.log.lag = lambda: {(0, 0): 11}  # type: ignore[method-assign]
    case.run()
    assert probed(case, "/readyz") == (503, "lag: 11 events behind in 1 partitions\n")


def test_every_failed_ping_is_counted() -> None:
    case = Case(ping=lambda: None)
    answers = away("ping", 40)
    case.service.ping = lambda: answers("ping")
    case.run()
    status, text = probed(case, "/metrics")
    assert status == 200
    assert 'reptide_store_errors_total{operation="ping"} 40.0' in text


@pytest.mark.parametrize("effect", ["forgotten", "load", "swap", "adopt"])
def test_every_operation_of_a_store_that_fails_is_counted(effect: str) -> None:
    case = Case()
    real = getattr(case.world.store, effect)
    answers = away(effect, 3)

    def asked(*arguments: Any) -> Any:
        answers(effect)
        return real(*arguments)

    setattr(case.world.store, effect, asked)
    case.run()
    assert f'reptide_store_errors_total{{operation="{effect}"}} 3.0' in probed(case, "/metrics")[1]


def test_an_ordinary_stall_of_the_broker_restarts_no_worker(tmp_path: Path) -> None:
    """It lasts as long as a delivery may take, and only then is the broker known to be away."""
    (tmp_path / "shop.toml").write_text(
        f'stream = "shop"\n{CONFIG}[kafka]\nbootstrap = ["b:1"]\ninputs = ["e"]\n[redis]\nurl = "redis://r:1/0"\n'
    )
    settings = load_settings(tmp_path / "shop.toml", {})
    assert settings.kafka is not None
    now_s = [0.0]
    case = Case()
    case.health = Health(worker_service.CONDITIONS, Deployment(settings).stuck_s, clock=lambda: now_s[0])
    case.service.health = case.health
    stalls = away("sync", 2)

    def stalled(effect: str) -> None:
        try:
            stalls(effect)
        except Unavailable:
            now_s[0] += settings.kafka.delivery_timeout_s + 1  # type: ignore[union-attr]
            assert case.health.stuck() == []
            raise

    case.world.hook = stalled
    case.run()
    assert case.log.waits == 2
    assert now_s[0] > 240


def test_a_broker_that_is_away_when_the_worker_leaves_is_no_failure() -> None:
    case = Case()

    def close() -> None:
        raise Unavailable("the broker is away")

    case.log.close = close  # type: ignore[method-assign]
    case.run()
    assert "the broker is away" in case.said[-1]


def test_a_role_is_made_though_a_server_is_away_or_restarted_meanwhile_and_not_where_it_stays_away() -> None:
    now = [0.0]

    def wait(seconds: float) -> None:
        now[0] += seconds

    def role(*errors: Unavailable) -> str:
        left = iter(errors)

        def make() -> str:
            for error in left:
                raise error
            return "a role"

        return made(make, lambda: now[0], wait)

    assert role(Forgot("the store was restarted"), Unavailable("no answer"), Forgot("again")) == "a role"
    with pytest.raises(Unavailable, match="no answer"):
        role(*[Unavailable("no answer")] * 100)
    assert STARTS_S <= now[0] < 2 * STARTS_S + 1

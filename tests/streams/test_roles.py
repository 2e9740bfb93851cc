"""The loops of worker and trainer: servers that go away, being told to stop, and episodes that come again."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import urlopen

import orjson
import pytest

from engine.outer.fit import start
from streams.assembly.deployed import Deployment
from streams.errors import Forgot, Unavailable
from streams.events.learned_labels import read_learned
from streams.events.record import incarnation_text
from streams.logs.memory import INCARNATION, MemoryLog
from streams.program import batch_limit, trainer_service, worker_service
from streams.program.batch_limit import LATELY, SMALLEST_BATCH, BatchLimit
from streams.program.patience import STARTS_S, made
from streams.program.trainer import WINDOW, Trainer
from streams.program.trainer_service import TrainerService
from streams.program.worker_service import WorkerService
from streams.settings.tree import load_settings
from streams.stores.memory import MemoryMeta
from streams.watch.health import Health, HealthServer
from streams.watch.telemetry import Telemetry
from tests.faults.model import SPEC, World, bits, online, stream
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


def test_events_that_expired_before_they_were_read_are_counted(lines: list[bytes]) -> None:
    case = Case()
    case.log.skipped = {(0, 0): 3, (1, 0): 2}
    case.run()
    one = service(Episodes(lines), MemoryMeta())
    one.episodes.skipped = 5  # type: ignore[misc]
    stopping = Event()
    one.show = lambda advance: stopping.set()
    one.run(stopping)
    for telemetry in (case.service.worker.telemetry, one.telemetry):
        assert b"reptide_events_skipped_total 5.0" in telemetry.exposition()


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


# Trainer


class Said(NamedTuple):
    partition: int
    offset: int
    value: bytes | None


class Episodes:
    """The partitions of an episodes topic, as lists, of which retention may have taken the first messages."""

    def __init__(self, *partitions: list[bytes], first: int = 0, incarnation: int = 7) -> None:
        self.partitions, self.first, self._incarnation = partitions, first, incarnation
        self.closed = False
        self.messages = self.skipped = 0

    def read(self, positions: Mapping[int, int], max_messages: int) -> tuple[list[Said], dict[int, int]]:
        after = {p: max(positions.get(p, 0), self.first) for p in range(len(self.partitions))}
        read: list[Said] = []
        for p, lines in enumerate(self.partitions):
            taken = lines[after[p] :][: max_messages - len(read)]
            read += [Said(p, offset, line) for offset, line in enumerate(taken, after[p])]
            after[p] += len(taken)
        self.messages += len(read)
        return read, after

    def incarnation(self) -> int:
        return self._incarnation

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="module")
def lines() -> list[bytes]:
    """The labels that a worker leaves on a log of 60 events."""
    world = World(stream(1, 60))
    worker = world.program(20).worker
    while worker.step() is not None:
        pass
    return world.outputs["episodes"].lines


def service(episodes: Episodes, store: MemoryMeta, window: int = WINDOW) -> TrainerService:
    trainer = Trainer(SPEC, online(), store, seed=1, batch=4, window=window)
    health = Health(trainer_service.CONDITIONS, 60.0)
    return TrainerService(
        trainer, episodes, Telemetry(), health, 0.01, lambda advance: None, lambda said: None
    )


def test_a_turn_takes_every_label_once_and_says_where_it_got_to(lines: list[bytes]) -> None:
    store = MemoryMeta()
    one = service(Episodes(lines), store)
    advance = one.turn()
    assert advance is not None
    assert advance.labels == len({read_learned(line)[:2] for line in lines})
    assert store.load(1).numbers["positions"] == {"0": len(lines)}
    assert one.turn() is None


def test_a_trainer_that_died_goes_on_from_what_it_published(lines: list[bytes]) -> None:
    store, other = MemoryMeta(), MemoryMeta()
    both = service(Episodes(lines), store)
    first = Episodes(lines[:10])
    service(first, store).turn()
    service(Episodes(lines), store).turn()
    whole = service(Episodes(lines[:10]), other)
    whole.turn()
    whole.episodes = Episodes(lines)
    whole.turn()
    assert told(store) == told(other)
    assert both.turn() is None


def told(store: MemoryMeta) -> list[Any]:
    return [(bits(v.params), bits(v.trainer), v.numbers) for v in store.versions]


def half_and_repeated(lines: list[bytes]) -> list[list[bytes]]:
    """Two partitions, as a worker that died left them; each with labels of a partition of the input of its own."""
    other = [line.replace(b'"partition":0', b'"partition":1') for line in lines]
    return [[*lines[:6], *lines[2:9], *lines[4:]], [*other[:3], *other[1:]]]


@pytest.mark.parametrize("window", [WINDOW, 9, 3, 1])
@pytest.mark.parametrize("ends", [(4, 8, 12, 99), (1, 2, 99), (7, 99)])
def test_a_trainer_started_anew_before_every_version_goes_on_bit_for_bit(
    lines: list[bytes], window: int, ends: tuple[int, ...] | tuple[int, int, int] | tuple[int, int]
) -> None:
    lasting, anew = MemoryMeta(), MemoryMeta()
    partitions = half_and_repeated(lines)
    lives_on = service(Episodes(), lasting, window)
    for end in ends:
        lives_on.episodes = Episodes(*(partition[:end] for partition in partitions))
        lives_on.turn()
        service(Episodes(*(partition[:end] for partition in partitions)), anew, window).turn()
    assert len(lasting.versions) == len(ends)
    assert told(anew) == told(lasting)


def test_the_window_holds_the_last_labels_of_each_partition_alike(lines: list[bytes]) -> None:
    partitions = half_and_repeated(lines)
    one = service(Episodes(*partitions), MemoryMeta(), window=6)
    one.turn()
    ends = [(p, n) for n in (3, 2, 1) for p in (0, 1)]
    expected = [(p, read_learned(partitions[p][-n]).source.offset) for p, n in ends]
    assert [(placed.partition, placed.label.source.offset) for placed in one._window.labels] == expected
    assert all(placed.label.episode is None for placed in one._window.labels)


def test_labels_that_retention_has_taken_are_gone_from_the_window_and_nothing_waits_for_them(
    lines: list[bytes],
) -> None:
    store = MemoryMeta()
    service(Episodes(lines[:12]), store).turn()
    one = service(Episodes(lines, first=10), store)
    advance = one.turn()
    assert advance is not None
    assert advance.labels == len(lines) - 12
    kept = [placed.offset for placed in one._window.labels]
    assert kept == list(range(10, len(lines)))


def test_a_trainer_that_has_nothing_to_do_reads_its_window_once(lines: list[bytes]) -> None:
    store = MemoryMeta()
    service(Episodes(lines), store).turn()
    one = service(Episodes(lines), store)
    assert [one.turn() for _ in range(3)] == [None] * 3
    assert one.episodes.messages == len(lines)  # type: ignore[attr-defined]


def test_labels_that_come_again_are_recognised(lines: list[bytes]) -> None:
    once, twice = MemoryMeta(), MemoryMeta()
    service(Episodes(lines), once).turn()
    repeated = [*lines[:12], *lines[4:12], *lines[12:], *lines]
    service(Episodes(repeated), twice).turn()
    assert bits(once.load(1).params) == bits(twice.load(1).params)
    assert service(Episodes([*repeated, *lines]), twice).turn() is None


def test_each_partition_of_the_input_has_a_place_of_its_own(lines: list[bytes]) -> None:
    elsewhere = [line.replace(b'"partition":0', b'"partition":1') for line in lines]
    advance = service(Episodes([*lines, *elsewhere]), MemoryMeta()).turn()
    assert advance is not None
    assert advance.labels == 2 * len(lines)


def test_labels_of_an_input_that_was_made_anew_are_no_repeats_whatever_their_offsets(
    lines: list[bytes],
) -> None:
    ours, theirs = (incarnation_text(INCARNATION + n).encode() for n in (0, 1))
    made_anew = [line.replace(ours, theirs) for line in lines]
    store = MemoryMeta()
    service(Episodes(lines), store).turn()
    advance = service(Episodes([*lines, *made_anew]), store).turn()
    assert advance is not None
    assert advance.labels == len(lines)


def test_an_episodes_topic_that_was_made_anew_is_read_from_its_start(lines: list[bytes]) -> None:
    store = MemoryMeta()
    service(Episodes(lines[:12], incarnation=7), store).turn()
    advance = service(Episodes(lines[10:], incarnation=8), store).turn()
    assert advance is not None
    assert advance.labels == len(lines) - 12
    assert store.load(2).numbers["positions"] == {"0": len(lines) - 10}


def test_lines_and_checkpoints_of_an_earlier_version_that_tell_no_incarnation_are_read_as_they_were(
    lines: list[bytes],
) -> None:
    untold = [re.sub(rb'"incarnation":"[0-9a-f]+",', b"", line) for line in lines]
    store = MemoryMeta()
    service(Episodes(untold[:12]), store).turn()
    before = store.versions[0]
    assert before.numbers["input"] == {"0:0": read_learned(untold[11]).source.offset}
    del before.numbers["episodes"]  # type: ignore[attr-defined]
    advance = service(Episodes(untold), store).turn()
    assert advance is not None
    assert advance.labels == len(lines) - 12


def test_what_another_trainer_published_first_is_gone_on_from(lines: list[bytes]) -> None:
    store = MemoryMeta()
    one, other = service(Episodes(lines), store), service(Episodes(lines), store)

    def other_comes_first(effect: str) -> None:
        store.before = lambda effect: None
        assert other.turn()

    store.before = other_comes_first
    advance = one.turn()
    assert advance is not None
    assert not advance.published
    assert one.turn() is None
    assert store.current() == 1


@pytest.mark.parametrize(
    ("poison", "error"),
    [
        (b"", "JSONDecodeError"),
        (b"no json", "JSONDecodeError"),
        (b"[]", "TypeError"),
        (b"{}", "KeyError"),
        (b"\xff", "JSONDecodeError"),
        (b'{"x":[1,2,3]}', "KeyError"),
        (b'{"x":["a"],"losses":null}', "ValueError"),
    ],
)
def test_a_message_that_is_no_label_is_passed_over_and_told_with_its_place(
    lines: list[bytes], poison: bytes, error: str
) -> None:
    once, with_poison = MemoryMeta(), MemoryMeta()
    service(Episodes(lines), once).turn()
    one = service(Episodes([poison, *lines[:5], poison, *lines[5:]]), with_poison)
    said: list[str] = []
    one.say = said.append
    one.turn()
    assert bits(once.load(1).params) == bits(with_poison.load(1).params)
    assert said == [
        f"the label in partition 0 at offset {offset} cannot be read ({error}); passed over"
        for offset in (0, 6)
    ]


def test_well_formed_lines_that_no_worker_wrote_stop_no_trainer_and_teach_it_nothing(
    lines: list[bytes],
) -> None:
    once, with_poison = MemoryMeta(), MemoryMeta()
    service(Episodes(lines), once).turn()
    said = orjson.loads(lines[0])
    wrongs: list[dict[str, Any]] = [
        {"y": []}, {"task": 5}, {"y": 7}, {"x": [1e30] * 99}, {"support": {"x": [], "y": []}},
    ]  # fmt: skip
    hostile = [orjson.dumps(said | wrong) for wrong in wrongs]
    one = service(Episodes([*hostile, *lines]), with_poison)
    one.turn()
    assert bits(once.load(1).params) == bits(with_poison.load(1).params)
    assert b"reptide_trainer_labels_passed_over_total 5.0" in one.telemetry.exposition()


def test_a_label_of_another_width_is_passed_over_and_told(lines: list[bytes]) -> None:
    wider = lines[0].replace(b'"x":[', b'"x":[9.0,', 1)
    assert wider != lines[0]
    one = service(Episodes([wider]), MemoryMeta())
    said: list[str] = []
    one.say = said.append
    assert one.turn() is None
    [sentence] = said
    assert f"offset 0 is not of this stream spec, whose features are {SPEC.problem.width} wide" in sentence


def test_a_trainer_is_ready_as_soon_as_its_servers_answer_and_alive_at_every_step_of_a_long_version(
    lines: list[bytes],
) -> None:
    now_s = [0.0]
    one = service(Episodes(lines), MemoryMeta())
    one.health = Health(trainer_service.CONDITIONS, 60.0, clock=lambda: now_s[0])
    steps: list[list[str]] = []

    def alive() -> None:
        steps.append(one.health.unready())
        now_s[0] += 59.0
        assert one.health.stuck() == []
        one.health.alive()

    one.trainer = replace(one.trainer, alive=alive)
    one.turn()
    assert len(steps) > len(lines) / 4
    assert steps == [[]] * len(steps)


def test_a_trainer_that_waits_long_between_versions_is_alive_meanwhile(lines: list[bytes]) -> None:
    now_s = [0.0]
    health = Health(trainer_service.CONDITIONS, 60.0, clock=lambda: now_s[0])

    class Patient(Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            assert timeout <= 59
            now_s[0] += 59
            assert health.stuck() == []
            if now_s[0] > 600:
                self.set()
            return self.is_set()

    one = replace(service(Episodes(lines), MemoryMeta()), publish_every_s=10_000.0, health=health)
    one.run(Patient())
    assert now_s[0] > 600


def test_a_store_that_is_away_is_asked_again(lines: list[bytes]) -> None:
    store = MemoryMeta(before=away("publish", 2))
    one = service(Episodes(lines), store)
    stopping = Event()
    one.show = lambda advance: stopping.set()
    said: list[str] = []
    one.say = said.append
    one.run(stopping)
    assert store.current() == 1
    assert said == ["waiting: publish: no answer"]
    assert one.episodes.closed  # type: ignore[attr-defined]

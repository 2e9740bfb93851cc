"""The loop of the trainer: each label once, in rounds of the log's places; and servers that go away."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from threading import Event
from typing import Any, NamedTuple

import numpy as np
import orjson
import pytest

from engine.learners.gradient import GradientLearner
from engine.outer.backprop import Backprop
from engine.outer.descent import FitSettings
from engine.outer.online import Online, Rates
from engine.traced import Recorded
from streams.events.learned_labels import LearnedLabel, read_learned
from streams.events.record import SourcePosition, incarnation_text
from streams.logs.memory import INCARNATION, MemoryOutput
from streams.program import trainer_service
from streams.program.episode_labels import Placed, Window
from streams.program.label_log import LabelLog
from streams.program.label_rounds import mixed, rounds_of
from streams.program.label_window import LabelWindow
from streams.program.rounds import Rounds
from streams.program.schedule import Schedule
from streams.program.trainer import WINDOW, Trainer
from streams.program.trainer_service import TrainerService
from streams.program.training_state import restored
from streams.program.warm_trainer import warm_up
from streams.stores.memory import MemoryMeta
from streams.stores.versions import Checkpoint
from streams.watch.health import Health
from streams.watch.telemetry import Telemetry
from tests.faults.model import GRID, SPEC, bits, lines_of_episodes, online
from tests.recordings import not_shared
from tests.streams.test_roles import Case, away


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
    return lines_of_episodes()


def service(episodes: Episodes, store: MemoryMeta, window: int = WINDOW) -> TrainerService:
    trainer = Trainer(SPEC, online(), store, seed=1, batch=4, window=window)
    health = Health(trainer_service.CONDITIONS, 60.0)
    return TrainerService(
        trainer, episodes, Schedule(GRID), Telemetry(), health, 100.0, lambda advance: None, lambda said: None
    )


# Rounds


def in_one_process(lines: list[bytes], window: int = WINDOW) -> list[Checkpoint]:
    """The versions of the embedded program, whose rounds fall due at places in the log."""
    store = MemoryMeta()
    trainer = service(Episodes(), store, window).trainer
    said = LabelLog(MemoryOutput(), trainer.labels)
    said.append(lines)
    rounds = Rounds(trainer, said, INCARNATION)
    for place in range(GRID, 60, GRID):
        rounds.run(place)
    return store.versions


def after_portions(size: int, lines: list[bytes], window: int = WINDOW) -> list[Checkpoint]:
    """The versions of a trainer that is handed so many labels at once."""
    store = MemoryMeta()
    one = service(Episodes(), store, window)
    for end in range(size, len(lines) + size, size):
        one.episodes.partitions = [lines[:end]]  # type: ignore[attr-defined]
        one.turn()
    return store.versions


def begun(lines: list[bytes]) -> int:
    """How many labels of one partition are in the round that has begun."""
    places = [read_learned(line).source.offset // GRID for line in lines]
    return places.count(places[-1])


def trained(version: Checkpoint) -> Any:
    """What training goes on from, bit for bit."""
    state = restored(version, version.params)
    parts = state.params, state.optimizer, state.sums, vars(state.statistics)
    return state.step, *map(bits, parts)


@pytest.mark.parametrize("window", [WINDOW, 6])
@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_labels_in_portions_of_any_size_train_theta_as_one_process_does_bit_for_bit(
    lines: list[bytes], size: int, window: int
) -> None:
    last = after_portions(size, lines, window)[-1]
    embedded = in_one_process(lines, window)
    assert last.numbers["rounds"] == len(embedded)
    assert trained(last) == trained(embedded[-1])


def test_where_rounds_take_long_each_is_published_and_theta_is_the_same(lines: list[bytes]) -> None:
    store = MemoryMeta()
    slow = replace(service(Episodes(lines), store), publish_every_s=0.0)
    while slow.turn():
        pass
    at_once = after_portions(1000, lines)
    assert [version.numbers["rounds"] for version in store.versions] == [*range(1, 8)]
    assert trained(store.versions[-1]) == trained(at_once[-1])
    assert bits(store.versions[-1].params) == bits(at_once[-1].params)


def test_what_is_served_was_taught_every_label_that_came_whatever_portions_it_came_in(
    lines: list[bytes],
) -> None:
    small, large = after_portions(1, lines)[-1], after_portions(1000, lines)[-1]
    assert bits(small.params) == bits(large.params)
    assert small.numbers == large.numbers
    assert small.numbers["begun"]["labels"] == begun(lines)
    assert large.trainer["statistics.count"][-1] + begun(lines) == len(lines)
    assert bits(large.params) != bits(restored(large, large.params).params)


def test_the_first_version_waits_for_the_first_round_to_be_whole(lines: list[bytes]) -> None:
    store = MemoryMeta()
    first = len([line for line in lines if read_learned(line).source.offset < GRID])
    assert service(Episodes(lines[:first]), store).turn() is None
    advance = service(Episodes(lines[: first + 1]), store).turn()
    assert advance is not None
    assert advance.labels == first + 1


def test_a_trainer_that_is_warm_records_nothing_once_labels_come(
    lines: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Recorded, "__init__", not_shared)
    by_tensors = Online(GradientLearner(SPEC.problem), Backprop(), Rates(FitSettings("SGD", lr=0.1)))
    one = service(Episodes(lines), MemoryMeta())
    one.trainer = replace(one.trainer, online=by_tensors)
    warm_up(one.trainer)

    def record(*_: Any) -> None:
        raise AssertionError("a call is recorded though the trainer is warm")

    monkeypatch.setattr(Recorded, "_record", record)
    assert one.turn()


def test_a_turn_without_new_labels_makes_no_version(lines: list[bytes]) -> None:
    store = MemoryMeta()
    one = service(Episodes(lines), store)
    assert one.turn()
    assert one.turn() is None
    assert service(Episodes(lines), store).turn() is None


def placed(partition: int, offsets: Iterable[int]) -> list[Placed]:
    """Labels at these offsets of a partition of the input, in the same partition of the episodes."""
    x, losses = np.zeros(1, np.float32), np.zeros(5)
    return [
        Placed(
            partition,
            n,
            LearnedLabel("task", SourcePosition(1, partition, offset), n + 1, x, 0.0, losses, None),
        )
        for n, offset in enumerate(offsets)
    ]


def offsets(rounds: list[list[Placed]]) -> list[list[int]]:
    return [[one.label.source.offset for one in labels] for labels in rounds]


def test_rounds_are_those_of_one_process_at_64_events_then_ever_further_apart() -> None:
    rounds = rounds_of(placed(0, range(1, 10_000, 2)), {}, Schedule(4096))
    assert [labels[0].label.source.offset for labels in rounds[:6]] == [1, 65, 129, 193, 257, 321]
    assert [len(labels) for labels in rounds[:6]] == [32, 32, 32, 32, 32, 40]
    rounds = rounds_of(placed(0, range(1, 30_000, 2)), {}, Schedule(4096))
    assert [labels[0].label.source.offset for labels in rounds[-3:]] == [20_481, 24_577, 28_673]


def test_a_round_is_of_as_many_events_where_they_lie_in_several_partitions() -> None:
    rounds = rounds_of(mixed(placed(0, range(400)) + placed(1, range(200))), {}, Schedule(60))
    assert [len(labels) for labels in rounds] == [60] * 10
    for labels in rounds:
        first = sum(one.partition == 0 for one in labels)
        assert abs(first - 2 * (len(labels) - first)) <= 2


def test_rounds_go_on_where_those_before_have_ended_in_each_partition() -> None:
    labels = placed(0, range(0, 100)) + placed(1, range(100))
    whole = rounds_of(mixed(labels), {}, Schedule(20))
    taught = Window().after([one for labels in whole[:3] for one in labels], 1000)
    left = [one for labels in whole[3:] for one in labels]
    assert offsets(rounds_of(left, taught.input, Schedule(20))) == offsets(whole[3:])


def test_a_round_of_very_many_labels_is_taught_in_parts() -> None:
    assert offsets(rounds_of(placed(0, range(25)), {}, Schedule(100), most=10)) == [
        [*range(10)], [*range(10, 20)], [*range(20, 25)]
    ]  # fmt: skip


def test_a_turn_takes_every_label_once_and_says_where_it_got_to(lines: list[bytes]) -> None:
    store = MemoryMeta()
    one = service(Episodes(lines), store)
    advance = one.turn()
    assert advance is not None
    assert advance.labels == len({read_learned(line)[:2] for line in lines})
    numbers = store.load(1).numbers
    assert numbers["positions"] == {"0": len(lines) - begun(lines)}
    assert numbers["begun"] == {"labels": begun(lines), "positions": {"0": len(lines)}}


def test_a_trainer_that_died_goes_on_from_what_it_published(lines: list[bytes]) -> None:
    store, other = MemoryMeta(), MemoryMeta()
    both = service(Episodes(lines), store)
    first = Episodes(lines[:10])
    service(first, store).turn()
    service(Episodes(lines), store).turn()
    whole = service(Episodes(lines[:10]), other)
    whole.turn()
    whole.episodes.partitions = [lines]  # type: ignore[attr-defined]
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
@pytest.mark.parametrize("ends", [(4, 8, 12, 99), (4, 5, 99), (7, 99)])
def test_a_trainer_started_anew_before_every_version_goes_on_bit_for_bit(
    lines: list[bytes], window: int, ends: tuple[int, ...] | tuple[int, int, int] | tuple[int, int]
) -> None:
    lasting, anew = MemoryMeta(), MemoryMeta()
    partitions = half_and_repeated(lines)
    lives_on = service(Episodes(), lasting, window)
    for end in ends:
        lives_on.episodes.partitions = [one[:end] for one in partitions]  # type: ignore[attr-defined]
        lives_on.turn()
        service(Episodes(*(partition[:end] for partition in partitions)), anew, window).turn()
    assert len(lasting.versions) == len(ends)
    assert told(anew) == told(lasting)


def test_the_window_holds_the_last_labels_of_each_partition_alike() -> None:
    window = Window().after(mixed(placed(0, range(9)) + placed(1, range(20, 27))), 6)
    assert [(one.partition, one.label.source.offset) for one in window.labels] == [
        (0, 6), (1, 24), (0, 7), (1, 25), (0, 8), (1, 26)
    ]  # fmt: skip


def test_labels_of_the_window_are_kept_without_their_episodes(lines: list[bytes]) -> None:
    one = service(Episodes(lines), MemoryMeta())
    one.turn()
    kept = one.labels.taught(one.trainer.store.load(1).numbers).labels
    assert len(kept) == len(lines) - begun(lines)
    assert all(placed.label.episode is None for placed in kept)


def test_labels_that_retention_has_taken_are_gone_from_the_window_and_nothing_waits_for_them(
    lines: list[bytes],
) -> None:
    store = MemoryMeta()
    service(Episodes(lines[:12]), store).turn()
    one = service(Episodes(lines, first=10), store)
    taught = 12 - begun(lines[:12])
    kept = one.labels.taught(store.load(1).numbers).labels
    assert [placed.offset for placed in kept] == [*range(10, taught)]
    advance = one.turn()
    assert advance is not None
    assert advance.labels == len(lines) - 12


def test_a_trainer_that_has_nothing_to_do_reads_its_window_once(lines: list[bytes]) -> None:
    store = MemoryMeta()
    service(Episodes(lines), store).turn()
    episodes = Episodes(lines)
    one = service(episodes, store)
    assert one.turn() is None
    read = episodes.messages
    assert [one.turn() for _ in range(3)] == [None] * 3
    assert episodes.messages == read


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
    assert begun(lines[:12]) >= 2
    assert advance.labels == len(lines) - 10
    assert store.load(2).numbers["positions"] == {"0": len(lines) - 10 - begun(lines)}


def test_lines_and_checkpoints_of_an_earlier_version_that_tell_no_incarnation_are_read_as_they_were(
    lines: list[bytes],
) -> None:
    untold = [re.sub(rb'"incarnation":"[0-9a-f]+",', b"", line) for line in lines]
    store = MemoryMeta()
    one = service(Episodes(untold[:12]), store)
    found = one.labels.since(Window())
    numbers = Window().after(found, WINDOW).numbers
    assert numbers["input"] == {"0:0": read_learned(untold[11]).source.offset}
    del numbers["episodes"]
    assert one.trainer.advance(
        None, LabelWindow.of([placed.label for placed in found]), len(found), numbers
    ).published
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

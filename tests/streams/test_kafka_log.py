"""What `KafkaLog` does with what a client brings, on a client that the test writes as it goes."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import pytest

from engine.types import Kind
from streams.errors import InputError, Unavailable
from streams.events.record import Offsets, Place, Polled, Record
from streams.logs.kafka import log as kafka
from streams.logs.kafka.group import Fetched, InputTopic, OffsetOutOfRange
from streams.logs.kafka.log import KafkaLog


class ScriptedGroup:
    """A `GroupClient` whose log, assignment and failures the test sets."""

    def __init__(self, topics: int = 1, partitions: int = 1) -> None:
        self.counts = [partitions] * topics
        self.places = frozenset((t, p) for t in range(topics) for p in range(partitions))
        self.log: dict[Place, list[int]] = {place: [] for place in self.places}
        self.at: dict[Place, int] = dict.fromkeys(self.places, 0)
        self.revoked: set[Place] = set()
        self.refused: dict[Place, int] = {}
        self.paused: set[Place] = set()
        self.committed: list[dict[Place, int]] = []
        self.first: dict[Place, int] = {}
        self.incarnation = 7
        self.hidden = 0
        """How many records of the end of each log the broker does not tell of when it is asked."""
        self.away = False
        self.closed = False

    def append(self, place: Place, count: int = 1) -> None:
        log = self.log[place]
        log.extend(range(len(log), len(log) + count))

    def fetch(self, max_records: int, timeout_s: float) -> Fetched:
        fetched: dict[Place, list[Record]] = {}
        for place in sorted(self.places - self.paused):
            if self.at[place] < self.first.get(place, 0):
                raise OffsetOutOfRange(place, self.at[place])
            offsets = self.log[place][self.at[place] :][: max_records - sum(map(len, fetched.values()))]
            if offsets:
                fetched[place] = [record(place, offset) for offset in offsets]
                self.at[place] += len(offsets)
        revoked, self.revoked = self.revoked, set()
        refused, self.refused = self.refused, {}
        return Fetched(revoked, fetched, refused)

    def assigned(self) -> frozenset[Place]:
        return self.places

    def topics(self) -> tuple[InputTopic, ...]:
        self._answer()
        return tuple(InputTopic(count, self.incarnation + n) for n, count in enumerate(self.counts))

    def position(self, place: Place) -> int | None:
        return self.at.get(place)

    def highwater(self, place: Place) -> int | None:
        return len(self.log[place])

    def start(self, place: Place) -> int:
        return self.first.get(place, 0)

    def end(self, places: Collection[Place]) -> dict[Place, int]:
        self._answer()
        return {place: max(0, len(self.log[place]) - self.hidden) for place in places}

    def seek(self, place: Place, offset: int) -> None:
        self.at[place] = offset

    def pause(self, places: Collection[Place]) -> None:
        self.paused.update(places)

    def resume(self, places: Collection[Place]) -> None:
        self.paused.difference_update(places)

    def commit(self, offsets: Offsets) -> None:
        self._answer()
        self.committed.append(dict(offsets))

    def close(self) -> None:
        self.closed = True

    def _answer(self) -> None:
        if self.away:
            raise Unavailable("the broker is away")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def record(place: Place, offset: int) -> Record:
    return Record(offset, Kind(place[0]), "ann", offset, 0.0, topic=place[0], partition=place[1])


def seen(polled: list[Polled]) -> list[tuple[int, int, int]]:
    """Topic, partition and offset, in the order of folding."""
    return [(r.topic, r.partition, r.offset) for part in polled for r in part.records]


def kafka_log(group: ScriptedGroup, **settings: Any) -> KafkaLog:
    names = ["observations", "labels"][: len(group.counts)]
    return KafkaLog(group, names, **settings)


class TestPolling:
    def test_one_polled_a_partition_with_its_position_and_incarnation(self) -> None:
        group = ScriptedGroup(partitions=2)
        group.append((0, 0), 3)
        group.append((0, 1), 2)
        log = kafka_log(group)
        assert [(p.partition, p.position, len(p.records)) for p in log.poll(10)] == [(0, 0, 3), (1, 0, 2)]
        group.append((0, 1), 1)
        [polled] = log.poll(10)
        assert (polled.partition, polled.position, polled.incarnations) == (1, 2, (7,))
        assert polled.partitions == 2

    def test_a_topic_that_is_made_anew_or_given_partitions_is_noticed_though_the_group_says_nothing(
        self,
    ) -> None:
        group, clock = ScriptedGroup(), Clock()
        log = kafka_log(group, clock=clock)
        group.append((0, 0), 3)
        assert [polled.incarnations for polled in log.poll(1)] == [(7,)]
        group.incarnation, group.counts = 8, [2]
        assert [polled.incarnations for polled in log.poll(1)] == [(7,)]
        clock.now += kafka.ASK_EVERY_S
        assert [(polled.incarnations, polled.partitions) for polled in log.poll(1)] == [((8,), 2)]

    def test_records_fetched_while_the_broker_could_not_be_asked_more_are_not_lost(self) -> None:
        group = ScriptedGroup()
        group.append((0, 0), 3)
        log = kafka_log(group)
        group.away = True
        for _ in range(3):
            with pytest.raises(Unavailable):
                log.poll(2)
        group.away = False
        assert seen(log.poll(2)) + seen(log.poll(2)) == [(0, 0, 0), (0, 0, 1), (0, 0, 2)]

    def test_the_lag_counts_what_was_not_handed_out(self) -> None:
        group = ScriptedGroup()
        group.append((0, 0), 5)
        log = kafka_log(group)
        log.poll(2)
        assert log.lag() == {(0, 0): 3}
        assert log.assigned() == {0}

    def test_the_origin_names_topic_partition_offset_and_incarnation(self) -> None:
        group = ScriptedGroup()
        group.append((0, 0), 1)
        log = kafka_log(group)
        [polled] = log.poll(1)
        said = f"observations partition 3 offset 17 of incarnation {polled.incarnations[0]:016x}"
        assert log.origin(record((0, 3), 17)) == said


class TestWaiting:
    def test_reads_nothing_on_and_loses_nothing(self) -> None:
        group = ScriptedGroup(partitions=2)
        group.append((0, 0), 2)
        log = kafka_log(group)
        log.poll(1)
        log.wait(0.1)
        assert group.at == {(0, 0): 1, (0, 1): 0}
        assert not group.paused
        assert seen(log.poll(10)) == [(0, 0, 1)]

    def test_what_came_with_a_new_partition_is_handed_out_later(self) -> None:
        group = ScriptedGroup()
        log = kafka_log(group)
        group.append((0, 0), 2)
        log.wait(0.1)  # the first fetch assigns, too late to have paused it
        assert seen(log.poll(10)) == [(0, 0, 0), (0, 0, 1)]


class TestCommits:
    def folded(self, clock: Clock, **settings: float) -> tuple[ScriptedGroup, KafkaLog]:
        group = ScriptedGroup()
        group.append((0, 0), 100)
        log = kafka_log(group, clock=clock, **settings)
        log.poll(1)
        return group, log

    def test_trail_what_took_effect_by_the_durability_lag(self) -> None:
        clock = Clock()
        group, log = self.folded(clock)
        log.commit({(0, 0): 1})
        clock.now += 1.9
        log.commit({(0, 0): 5})
        assert group.committed == []
        clock.now += 0.2
        log.poll(1)
        assert group.committed == [{(0, 0): 1}]
        clock.now += 2.0
        log.poll(1)
        assert group.committed[1:] == [{(0, 0): 5}]

    def test_one_that_the_group_did_not_take_is_tried_again_where_the_partition_is_still_ours(self) -> None:
        clock = Clock()
        group, log = self.folded(clock, durability_lag_s=0.0)
        clock.now += 2.0
        log.commit({(0, 0): 1})
        group.refused = {(0, 0): 1, (0, 1): 7}
        log.poll(1)
        clock.now += 2.0
        log.poll(1)
        assert group.committed == [{(0, 0): 1}, {(0, 0): 1}]

    def test_one_that_was_not_taken_never_undoes_a_later_one(self) -> None:
        clock = Clock()
        group, log = self.folded(clock, durability_lag_s=0.0)
        for offset in (1, 5):
            clock.now += 2.0
            log.commit({(0, 0): offset})
        group.refused = {(0, 0): 1}
        log.poll(1)
        clock.now += 2.0
        log.poll(1)
        assert group.committed == [{(0, 0): 1}, {(0, 0): 5}]

    def test_while_the_store_is_away_nothing_is_committed(self) -> None:
        clock = Clock()
        group, log = self.folded(clock)
        log.commit({(0, 0): 1})
        clock.now += 10
        log.wait(0.1)
        assert group.committed == []

    def test_are_at_most_one_a_second(self) -> None:
        clock = Clock()
        group, log = self.folded(clock, durability_lag_s=0.0)
        for offset in range(1, 41):
            clock.now += 0.125
            log.commit({(0, 0): offset})
        assert group.committed == [{(0, 0): offset} for offset in (8, 16, 24, 32, 40)]

    def test_closing_commits_only_what_is_old_enough(self) -> None:
        clock = Clock()
        group, log = self.folded(clock)
        log.commit({(0, 0): 1})
        clock.now += 1.5
        log.commit({(0, 0): 9})
        clock.now += 0.6
        log.close()
        assert group.committed == [{(0, 0): 1}]
        assert group.closed

    def test_of_a_revoked_partition_are_dropped(self) -> None:
        clock = Clock()
        group, log = self.folded(clock)
        log.commit({(0, 0): 1})
        group.revoked = {(0, 0)}  # and given back at once, as an eager rebalance does
        log.poll(1)
        clock.now += 10
        log.poll(1)
        assert group.committed == []

    def test_a_broker_that_is_away_is_asked_again_later(self) -> None:
        clock = Clock()
        group, log = self.folded(clock, durability_lag_s=0.0)
        group.away = True
        clock.now += 1
        log.commit({(0, 0): 1})
        group.away = False
        clock.now += 1
        log.poll(1)
        assert group.committed == [{(0, 0): 1}]


class TestRewinding:
    def test_hands_out_again_what_was_not_committed(self) -> None:
        clock = Clock()
        group = ScriptedGroup()
        group.append((0, 0), 9)
        log = kafka_log(group, clock=clock)
        log.poll(4)
        log.commit({(0, 0): 4})
        clock.now += 3
        log.poll(2)
        assert group.committed == [{(0, 0): 4}]
        log.commit({(0, 0): 6})
        log.rewind()
        clock.now += 10
        assert seen(log.poll(9)) == [(0, 0, offset) for offset in range(4, 9)]
        assert group.committed == [{(0, 0): 4}]

    def test_goes_back_to_the_first_record_handed_out_where_nothing_was_committed(self) -> None:
        group = ScriptedGroup()
        group.append((0, 0), 3)
        log = kafka_log(group)
        log.poll(2)
        log.rewind()
        assert seen(log.poll(9)) == [(0, 0, 0), (0, 0, 1), (0, 0, 2)]


class TestRebalance:
    def test_what_was_fetched_of_a_revoked_partition_is_dropped(self) -> None:
        group = ScriptedGroup(partitions=2)
        log = kafka_log(group)
        log.poll(1)
        group.append((0, 0), 1)
        group.append((0, 1), 1)
        group.away = True
        group.revoked = {(0, 5)}
        with pytest.raises(Unavailable):
            log.poll(10)  # both are on their shelves now
        group.away = False
        group.places = frozenset({(0, 1)})
        assert seen(log.poll(10)) == [(0, 1, 0)]

    def test_a_partition_that_comes_back_is_read_from_its_new_position(self) -> None:
        group = ScriptedGroup()
        group.append((0, 0), 10)
        log = kafka_log(group)
        log.poll(5)
        group.revoked, group.at[0, 0] = {(0, 0)}, 2
        [polled] = log.poll(2)
        assert (polled.position, seen([polled])) == (2, [(0, 0, 2), (0, 0, 3)])


class TestTwoTopics:
    def test_a_label_waits_for_every_observation_that_was_in_the_log_before_it(self) -> None:
        group = ScriptedGroup(topics=2)
        group.append((1, 0), 2)
        log = kafka_log(group)
        group.pause([(0, 0)])
        group.append((0, 0), 3)
        assert log.poll(10) == []
        group.resume([(0, 0)])
        assert seen(log.poll(2)) == [(0, 0, 0), (0, 0, 1)]
        assert seen(log.poll(10)) == [(0, 0, 2), (1, 0, 0), (1, 0, 1)]

    def test_it_does_not_wait_for_those_that_came_later(self) -> None:
        group = ScriptedGroup(topics=2)
        group.append((1, 0), 1)
        group.append((0, 0), 1)
        log = kafka_log(group)
        group.pause([(0, 0)])
        log.poll(10)
        group.resume([(0, 0)])
        assert seen(log.poll(10)) == [(0, 0, 0), (1, 0, 0)]
        group.append((0, 0), 5)
        assert seen(log.poll(2)) == [(0, 0, 1), (0, 0, 2)]

    def test_a_broker_that_forgets_all_but_the_first_of_the_last_batch_changes_nothing(self) -> None:
        group = ScriptedGroup(topics=2)
        group.hidden = 4
        group.append((1, 0), 1)
        group.append((0, 0), 5)
        log = kafka_log(group)
        group.pause([(0, 0)])
        log.poll(10)
        group.resume([(0, 0)])
        assert seen(log.poll(2)) == [(0, 0, 0), (0, 0, 1)]
        assert seen(log.poll(10)) == [(0, 0, 2), (0, 0, 3), (0, 0, 4), (1, 0, 0)]

    def test_labels_that_came_later_do_not_hold_up_those_before(self) -> None:
        group = ScriptedGroup(topics=2)
        group.append((0, 0), 1)
        group.append((1, 0), 1)
        log = kafka_log(group)
        group.pause([(0, 0)])
        assert log.poll(10) == []
        group.append((0, 0), 1)
        group.append((1, 0), 1)
        assert log.poll(10) == []
        group.resume([(0, 0)])
        assert seen(log.poll(1)) == [(0, 0, 0)]
        assert seen(log.poll(10))[:1] == [(0, 0, 1)]

    def test_labels_are_not_read_on_while_many_wait(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(kafka, "HELD_LABELS", 10)
        group = ScriptedGroup(topics=2)
        group.append((1, 0), 100)
        group.append((0, 0), 1)
        log = kafka_log(group)
        for _ in range(20):
            group.pause([(0, 0)])
            assert log.poll(4) == []
            log.wait(0.1)
        assert group.at[1, 0] == 12
        group.resume([(0, 0)])
        got = [part for _ in range(40) for part in seen(log.poll(4))]
        assert got == [(0, 0, 0), *((1, 0, n) for n in range(100))]

    def test_never_more_than_asked_for_in_all(self) -> None:
        group = ScriptedGroup(topics=2, partitions=3)
        for place in group.places:
            group.append(place, 50)
        log, got = kafka_log(group), []
        for _ in range(200):
            polled = seen(log.poll(7))
            assert len(polled) <= 7
            got += polled
        assert sorted(got) == sorted((t, p, n) for t, p in group.places for n in range(50))
        for t, p in group.places:
            assert [n for place_t, place_p, n in got if (place_t, place_p) == (t, p)] == list(range(50))

    def test_the_position_is_the_first_topics(self) -> None:
        group = ScriptedGroup(topics=2)
        group.append((0, 0), 3)
        log = kafka_log(group)
        log.poll(10)
        group.append((1, 0), 1)
        [polled] = log.poll(10)
        assert (polled.position, polled.incarnations, seen([polled])) == (3, (7, 8), [(1, 0, 0)])

    def test_a_split_pair_is_refused_by_its_topics(self) -> None:
        group = ScriptedGroup(topics=2, partitions=2)
        group.places -= {(1, 1)}
        with pytest.raises(InputError, match=r"observations and labels.*\[0, 1\].*\[0\].*range assignor"):
            kafka_log(group).poll(10)

    def test_topics_of_different_partition_counts_are_refused_by_topics_and_counts(self) -> None:
        group = ScriptedGroup(topics=2, partitions=2)
        group.counts = [2, 3]
        with pytest.raises(
            InputError, match=r"observations and labels have 2 and 3 partitions.*topics create"
        ):
            kafka_log(group).poll(10)


class TestExpiredOffsets:
    def expired(self) -> ScriptedGroup:
        group = ScriptedGroup()
        group.append((0, 0), 10)
        group.first, group.at = {(0, 0): 6}, {(0, 0): 2}
        return group

    def test_stop_the_worker_with_the_place_and_the_way_out(self) -> None:
        with pytest.raises(
            InputError, match=r"observations partition 0: offset 2 .* 6: 4 are lost.*skip.*retention.ms"
        ):
            kafka_log(self.expired()).poll(10)

    def test_are_skipped_loudly_where_that_is_set(self) -> None:
        group = self.expired()
        log = kafka_log(group, expired="skip")
        with pytest.warns(RuntimeWarning, match="4 are lost"):
            assert log.poll(10) == []
        assert log.skipped == {(0, 0): 4}
        [polled] = log.poll(10)
        assert (polled.position, [r.offset for r in polled.records]) == (6, [6, 7, 8, 9])

    @pytest.mark.parametrize("expired", ["fail", "skip"])
    def test_one_beyond_the_end_is_never_skipped(self, expired: str) -> None:
        group = self.expired()
        log = kafka_log(group, expired=expired)
        group.fetch = raising(OffsetOutOfRange((0, 0), 99))  # type: ignore[method-assign, assignment]
        with pytest.raises(InputError, match=r"offset 99 .* no longer holds .*rebuild"):
            log.poll(10)

    @pytest.mark.parametrize("expired", ["fail", "skip"])
    def test_of_a_log_that_was_cut_nothing_is_skipped_wherever_it_ends_now(self, expired: str) -> None:
        group = self.expired()
        group.fetch = raising(OffsetOutOfRange((0, 0), 2, cut=True))  # type: ignore[method-assign, assignment]
        with pytest.raises(InputError, match=r"offset 2 .* created anew or cut: .*rebuild"):
            kafka_log(group, expired=expired).poll(10)


def raising(error: Exception) -> Callable[[int, float], Fetched]:
    def fetch(max_records: int, timeout_s: float) -> Fetched:
        raise error

    return fetch

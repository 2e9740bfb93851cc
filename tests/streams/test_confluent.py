"""What a member on confluent-kafka makes of rebalances and errors in the midst of a fetch, on a scripted client."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, OFFSET_INVALID, KafkaError, KafkaException, TopicPartition

from streams.errors import InputError, ReptideError, Unavailable
from streams.events.envelope import Envelope
from streams.logs.kafka.confluent import consumer as confluent_consumer
from streams.logs.kafka.confluent.consumer import ConfluentGroup
from streams.logs.kafka.group import Connection, OffsetOutOfRange

AWAY = KafkaException(KafkaError(KafkaError._TIMED_OUT))
Step = Callable[["Scripted"], Sequence[Any]]


class Message:
    """One message of topic t, or an error in its place."""

    def __init__(self, partition: int, offset: int, code: int | None = None) -> None:
        self._place, self._code = (partition, offset), code

    def error(self) -> KafkaError | None:
        return None if self._code is None else KafkaError(self._code)

    def topic(self) -> str:
        return "t"

    def partition(self) -> int:
        return self._place[0]

    def offset(self) -> int:
        return self._place[1]

    def key(self) -> bytes:
        return b"k"

    def value(self) -> bytes:
        return b"{}"

    def headers(self) -> None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return 1, 0


class Scripted:
    """A `confluent_kafka.Consumer`: each call of `consume` does the next step, which returns what it brings."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.steps: list[Step] = []
        self.commits: dict[int, int] = {}
        self.away = False
        self.reads: dict[int, int] = {}
        """Where each partition assigned is read from."""

    def subscribe(self, topics: list[str], on_assign: Any, on_revoke: Any, on_lost: Any) -> None:
        self.on_assign, self.on_revoke, self.on_lost = on_assign, on_revoke, on_lost

    def consume(self, count: int, timeout_s: float) -> Sequence[Any]:
        return self.steps.pop(0)(self) if self.steps else []

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        if self.away:
            raise AWAY
        return [
            TopicPartition("t", p.partition, self.commits.get(p.partition, OFFSET_INVALID))
            for p in partitions
        ]

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        self.reads |= {p.partition: p.offset for p in partitions}

    def incremental_unassign(self, partitions: list[TopicPartition]) -> None:
        for p in partitions:
            del self.reads[p.partition]

    def pause(self, *_: Any, **__: Any) -> None:
        raise AWAY

    resume = pause
    commit = pause
    get_watermark_offsets = pause

    def close(self) -> None:
        raise RuntimeError("Consumer closed")

    # What befalls it

    def gives(self, *partitions: int) -> None:
        self.on_assign(self, [TopicPartition("t", p) for p in partitions])

    def takes(self, *partitions: int) -> None:
        self.on_revoke(self, [TopicPartition("t", p) for p in partitions])


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> ConfluentGroup:
    monkeypatch.setattr(confluent_consumer, "Consumer", Scripted)
    monkeypatch.setattr(confluent_consumer, "AdminClient", lambda settings: None)
    monkeypatch.setattr(confluent_consumer, "describe", lambda connection, topics: {})
    return ConfluentGroup(Connection("h:1"), "g", ["t"], Envelope())


def script(group: ConfluentGroup, *steps: Step) -> Scripted:
    client: Any = group._consumer
    client.steps = list(steps)
    return client  # type: ignore[no-any-return]


def brings(*messages: Message) -> Step:
    return lambda client: messages


def happens(event: Callable[[Scripted], None], *messages: Message) -> Step:
    def step(client: Scripted) -> Sequence[Message]:
        event(client)
        return messages

    return step


def offsets(group: ConfluentGroup) -> dict[int, list[int]]:
    """What the next fetch hands out, by partition."""
    return {place[1]: [r.offset for r in records] for place, records in group.fetch(10, 0.0).records.items()}


def given(group: ConfluentGroup, *partitions: int) -> None:
    script(group, happens(lambda client: client.gives(*partitions)))
    assert offsets(group) == {}


def test_what_is_revoked_within_a_fetch_is_neither_assigned_nor_handed_out(group: ConfluentGroup) -> None:
    given(group, 0, 1)
    after = Message(1, 7), Message(0, 6), Message(0, 7, KafkaError._PARTITION_EOF)
    script(group, brings(), brings(Message(0, 5)), happens(lambda client: client.takes(0), *after))
    fetched = group.fetch(10, 0.0)
    assert fetched.revoked == {(0, 0)}
    assert [(place, [r.offset for r in records]) for place, records in fetched.records.items()] == [
        ((0, 1), [7])
    ]
    assert group.assigned() == {(0, 1)}


def test_what_is_revoked_and_given_back_within_a_fetch_is_read_from_its_commit(group: ConfluentGroup) -> None:
    given(group, 0)

    def back(client: Scripted) -> None:
        client.takes(0)
        client.commits[0] = 3
        client.gives(0)

    client = script(group, brings(), brings(Message(0, 5)), happens(back, Message(0, 3)))
    assert offsets(group) == {0: [3]}
    assert (client.reads, group.position((0, 0))) == ({0: 3}, 4)


def test_what_is_given_to_a_member_that_leaves_is_not_begun(
    group: ConfluentGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = script(group)
    monkeypatch.setattr(client, "committed", lambda *_, **__: pytest.fail("nobody answers"))
    monkeypatch.setattr(client, "close", lambda: client.gives(0))
    group.close()
    assert (client.reads, group.assigned()) == ({}, frozenset())


def test_an_offset_out_of_range_of_what_was_revoked_is_not_raised(group: ConfluentGroup) -> None:
    given(group, 0, 1)
    expired = (Message(p, 0, KafkaError._AUTO_OFFSET_RESET) for p in (0, 1))
    script(group, brings(), brings(*expired), happens(lambda client: client.takes(0)))
    group.fetch(10, 0.0)
    with pytest.raises(OffsetOutOfRange) as caught:
        group.fetch(10, 0.0)
    assert caught.value.place == (0, 1)
    assert offsets(group) == {}


def test_where_commits_are_not_told_reading_begins_at_them_later(group: ConfluentGroup) -> None:
    client = script(group, happens(lambda client: client.gives(0, 1)))
    client.commits, client.away = {0: 8}, True
    assert offsets(group) == {}
    assert (group.assigned(), client.reads) == (frozenset(), {})
    with pytest.raises(Unavailable):
        group.fetch(10, 0.0)
    client.away = False
    client.steps = [brings(Message(0, 8), Message(1, 0))]
    assert offsets(group) == {0: [8], 1: [0]}
    assert client.reads == {0: 8, 1: OFFSET_BEGINNING}


def test_what_is_taken_away_before_its_commit_was_told_is_never_read(group: ConfluentGroup) -> None:
    client = script(group, happens(lambda client: client.gives(0)), happens(lambda client: client.takes(0)))
    client.away = True
    assert group.fetch(10, 0.0).revoked == {(0, 0)}
    client.away = False
    assert offsets(group) == {}
    assert (group.assigned(), client.reads) == (frozenset(), {})


def test_records_that_came_before_an_error_are_handed_out_after_it(group: ConfluentGroup) -> None:
    given(group, 0)

    def fails(client: Scripted) -> Sequence[Any]:
        raise AWAY

    script(group, brings(), brings(Message(0, 5)), fails, brings(Message(0, 6)))
    with pytest.raises(Unavailable):
        group.fetch(10, 0.0)
    assert offsets(group) == {0: [5, 6]}


@pytest.mark.parametrize("call", ["pause", "resume", "commit", "close"])
def test_every_error_of_the_client_is_one_of_ours(group: ConfluentGroup, call: str) -> None:
    given(group, 0)
    arguments: dict[str, list[Any]] = {
        "pause": [{(0, 0)}],
        "resume": [{(0, 0)}],
        "commit": [{(0, 0): 1}],
        "close": [],
    }
    with pytest.raises(ReptideError, match="group g"):
        getattr(group, call)(*arguments[call])


def test_the_end_of_a_log_that_is_not_told_is_not_known(group: ConfluentGroup) -> None:
    given(group, 0)
    assert group.highwater((0, 0)) is None


def test_an_error_that_is_told_again_and_again_is_kept_once(group: ConfluentGroup) -> None:
    for _ in range(1000):
        group._notice(KafkaError(KafkaError._AUTHENTICATION))
    with pytest.raises(ReptideError, match="does not take"):
        group.fetch(10, 0.0)
    assert offsets(group) == {}


@pytest.mark.parametrize(
    "code", [KafkaError.INVALID_SESSION_TIMEOUT, KafkaError.UNSUPPORTED_VERSION, KafkaError._BAD_MSG]
)
def test_what_a_broker_refuses_for_good_is_raised_by_the_next_fetch(group: ConfluentGroup, code: int) -> None:
    group._notice(KafkaError(code))
    with pytest.raises(InputError, match="group g"):
        group.fetch(10, 0.0)


@pytest.mark.parametrize(
    "code", [KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError.NOT_COORDINATOR]
)
def test_what_passes_is_waited_out_by_the_library(group: ConfluentGroup, code: int) -> None:
    group._notice(KafkaError(code))
    assert offsets(group) == {}


def test_an_error_that_ends_the_client_ends_the_process(group: ConfluentGroup) -> None:
    group._notice(KafkaError(KafkaError.UNKNOWN_MEMBER_ID, fatal=True))
    with pytest.raises(InputError, match="start this worker again"):
        group.fetch(10, 0.0)


def test_a_log_that_was_cut_is_told_apart_from_one_that_expired(group: ConfluentGroup) -> None:
    given(group, 0)
    script(group, brings(), brings(Message(0, 0, KafkaError._LOG_TRUNCATION)))
    group.fetch(10, 0.0)
    with pytest.raises(OffsetOutOfRange) as caught:
        group.fetch(10, 0.0)
    assert caught.value.cut

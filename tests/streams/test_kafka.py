"""Kafka as the log and for the outputs, on brokers that are really there; both client libraries."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest

from engine.features.columns import Numeric
from engine.features.encoder import Features
from engine.problem import Problem
from engine.targets import Classification
from engine.types import Kind
from streams.errors import InputError, ReptideError, SettingsError, Unavailable
from streams.events.decoding import decode
from streams.events.envelope import Envelope
from streams.events.reading import Rejected
from streams.events.record import NULL_VALUE, Polled, Record
from streams.logs.kafka.group import Connection
from streams.logs.kafka.log import KafkaLog
from streams.logs.kafka.outputs import KafkaOutputs
from streams.logs.kafka.reader import KafkaTopicReader
from tests.kafka_brokers import Broker, append, group_of, noida, producer_of, tansu, topic_of

__all__ = ["noida", "tansu"]

PATIENCE_S = 60.0
SESSION = (6.0, 1.0)
"""Session timeout and heartbeat: the least that brokers accept."""

SECRET = "hunter2-and-more"  # noqa: S105


@pytest.fixture(params=["kafka-python", "confluent"])
def library(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def joined(library: str) -> Iterator[Callable[..., KafkaLog]]:
    """Joins groups, and leaves them at the end."""
    logs: list[KafkaLog] = []

    def join(
        broker: Broker,
        topics: Sequence[str],
        instance: Any = None,
        session: tuple[float, float] = SESSION,
        poll_s: float = 300.0,
        **settings: Any,
    ) -> KafkaLog:
        connection, envelope = Connection(broker.servers), Envelope(topics=len(topics))
        group, more = f"of {topics[0]}", (*session, instance, poll_s)
        client = group_of(library)(connection, group, topics, envelope, *more)
        logs.append(KafkaLog(client, topics, **settings))
        return logs[-1]

    yield join
    for log in logs:
        log.close()


@pytest.fixture
def produced(library: str) -> Iterator[Callable[..., KafkaOutputs]]:
    """Makes producers, and lets go of them at the end."""
    made: list[KafkaOutputs] = []

    def produce(broker: Broker, *topics: str, timeout_s: float = 10.0) -> KafkaOutputs:
        connection = Connection(broker.servers)
        made.append(KafkaOutputs(lambda: producer_of(library)(connection, topics, timeout_s)))
        return made[-1]

    yield produce
    for outputs in made:
        outputs.close()


def observation(task: str, identity: object) -> tuple[bytes, bytes]:
    event = {"task": task, "id": identity, "time": 100.0, "features": {"a": 1.0}}
    return task.encode(errors="replace"), orjson.dumps(event)


def label(task: str, identity: object) -> tuple[bytes, bytes]:
    return task.encode(), orjson.dumps({"task": task, "id": identity, "time": 200.0, "label": 1})


def many(count: int, first: int = 0) -> list[tuple[bytes, bytes]]:
    return [observation(f"task{n % 17}", f"e{n}") for n in range(first, first + count)]


def poll_until(
    logs: Sequence[KafkaLog], done: Callable[[], bool], into: list[Record], commit: bool = True
) -> None:
    """Poll the members in turn until something is so."""
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < deadline
        for log in logs:
            for part in log.poll(50, 0.05):
                into += part.records
                if commit:
                    log.commit(part.after())


def poll(log: KafkaLog, count: int) -> list[Record]:
    """Poll until so many records came."""
    records: list[Record] = []
    poll_until([log], lambda: len(records) >= count, records, commit=False)
    assert len(records) == count
    return records


def messages(broker: Broker, topic: str, count: int) -> list[Any]:
    """All messages of a topic, as kafka-python gives them."""
    from streams.logs.kafka.reader import KafkaTopicReader

    reader, found = KafkaTopicReader(Connection(broker.servers), topic), list[Any]()
    positions: dict[int, int] = {}
    deadline = time.monotonic() + PATIENCE_S
    while len(found) < count and time.monotonic() < deadline:
        some, positions = reader.read(positions, 1000, 0.2)
        found += some
    reader.close()
    assert len(found) == count
    return found


class TestMembers:
    def test_where_one_is_killed_the_other_goes_on_from_its_commits(
        self, tansu: Broker, joined: Callable[..., KafkaLog], library: str
    ) -> None:
        topic = topic_of(tansu, 2, many(100))
        dying = subprocess.Popen(
            [sys.executable, "-m", "tests.streams.kafka_member", tansu.servers, library, topic],
            stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        assert dying.stdout is not None
        seen = {tuple(map(int, dying.stdout.readline().split())) for _ in range(100)}
        append(tansu, topic, many(1, first=100))
        seen.add(tuple(map(int, dying.stdout.readline().split())))
        dying.kill()
        dying.wait()
        dying.stdout.close()
        append(tansu, topic, many(100, first=101))
        records: list[Record] = []
        survivor = joined(tansu, [topic])
        poll_until(
            [survivor],
            lambda: len({r.id for r in records} & {f"e{n}" for n in range(101, 201)}) == 100,
            records,
        )
        read = [(record.partition, record.offset) for record in records]
        assert len(read) == len(set(read))
        assert len(seen | set(read)) == 201

    def test_one_that_leaves_hands_its_partitions_over(
        self, noida: Broker, joined: Callable[..., KafkaLog]
    ) -> None:
        topic = topic_of(noida, 2, many(40))
        clock = Clock()
        first = joined(noida, [topic], clock=clock)
        records: list[Record] = []
        poll_until([first], lambda: len(records) == 40, records)
        clock.now += 60.0
        first.close()
        append(noida, topic, many(10, first=40))
        assert {record.id for record in poll(joined(noida, [topic]), 10)} == {f"e{n}" for n in range(40, 50)}

    def test_waiting_keeps_the_membership_and_every_record_in_its_order(
        self, tansu: Broker, joined: Callable[..., KafkaLog]
    ) -> None:
        topic = topic_of(tansu, 2, many(60))
        log = joined(tansu, [topic])
        records: list[Record] = []
        poll_until([log], lambda: len(records) >= 10, records, commit=False)
        patient_until = time.monotonic() + 1.5 * SESSION[0]
        while time.monotonic() < patient_until:
            log.wait(0.5)
        assert log.assigned() == {0, 1}
        append(tansu, topic, many(10, first=60))
        poll_until([log], lambda: len(records) >= 70, records, commit=False)
        for partition in (0, 1):
            offsets = [record.offset for record in records if record.partition == partition]
            assert offsets == list(range(len(offsets)))

    def test_a_partition_paused_half_read_is_read_on_though_another_was_read_to_its_end(
        self, noida: Broker, library: str
    ) -> None:
        topic = topic_of(noida, 2)
        for partition in (0, 1):
            append(noida, topic, many(30), partition=partition)
        client = group_of(library)(Connection(noida.servers), "g", [topic], Envelope(), *SESSION)
        read: Counter[tuple[int, int]] = Counter()

        def reads(done: Callable[[], bool]) -> bool:
            read.update({place: len(found) for place, found in client.fetch(10, 0.05).records.items()})
            return done()

        eventually(lambda: reads(lambda: bool(read)))
        [half] = read
        client.pause([half])
        eventually(lambda: reads(lambda: read[0, 1 - half[1]] == 30))
        client.resume([half])
        eventually(lambda: reads(lambda: read[half] == 30))
        client.close()

    def test_the_incarnation_changes_with_the_topic(
        self, tansu: Broker, joined: Callable[..., KafkaLog], library: str
    ) -> None:
        found = []
        for name in ("", "again"):
            topic = topic_of(tansu, 1, name=name)
            client = group_of(library)(Connection(tansu.servers), "g", [topic], Envelope(), *SESSION)
            found += [client.topics(), client.topics()]
            client.close()
            delete(tansu, topic)
        topic_of(tansu, 1, name="again")
        client = group_of(library)(Connection(tansu.servers), "g", ["again"], Envelope(), *SESSION)
        found.append(client.topics())
        client.close()
        delete(tansu, "again")
        assert found[0] == found[1]
        assert found[2] == found[3]
        assert len(set(found)) == 3


class TestTwoTopics:
    def topics(self, broker: Broker, partitions: int = 2, of_labels: int | None = None) -> list[str]:
        observations = topic_of(broker, partitions)
        return [observations, topic_of(broker, of_labels or partitions, name=f"{observations}-labels")]

    # Tansu tells the end of a log wrong now and then, and an observation behind it comes too late.
    def test_labels_written_first_come_after_the_observations_there_were(
        self, noida: Broker, joined: Callable[..., KafkaLog]
    ) -> None:
        observations, labels = self.topics(noida)
        append(noida, labels, [label(f"task{n % 17}", f"e{n}") for n in range(100)])
        append(noida, observations, many(100))
        log = joined(noida, [observations, labels])
        seen: set[object] = set()
        records: list[Record] = []
        poll_until([log], lambda: len(records) >= 200, records, commit=False)
        for record in records:
            assert record.topic == 0 or record.id in seen
            seen.add(record.id)
        assert Counter(record.topic for record in records) == {0: 100, 1: 100}

    def test_partition_counts_that_differ_are_refused(
        self, noida: Broker, joined: Callable[..., KafkaLog]
    ) -> None:
        topics = self.topics(noida, 2, of_labels=3)
        with pytest.raises(InputError, match=rf"{topics[0]} and {topics[1]} have 2 and 3 partitions"):
            poll(joined(noida, topics), 1)


class TestBadInput:
    def test_a_poison_message_at_the_head_lets_the_partition_move_on(
        self, noida: Broker, joined: Callable[..., KafkaLog]
    ) -> None:
        hostile = [(b"k", b"\xff\xfe"), (b"k", None), (b"", b""), (b"\xff", b"[" * 5000), (b"k", b"null")]
        topic = topic_of(noida, 1, [*hostile, *many(3)])
        records = poll(joined(noida, [topic]), 8)
        assert [record.fault is None for record in records] == [False] * 5 + [True] * 3
        assert [record.raw for record in records[:5]] == [value or b"" for _, value in hostile]
        assert [record.key for record in records[:5]] == [key for key, _ in hostile]

    def test_hostile_ids_come_as_they_are(self, noida: Broker, joined: Callable[..., KafkaLog]) -> None:
        ids = ["", "\n", "{a}", "x" * 65_536, "\0", "🙂", "%", "../../etc"]
        topic = topic_of(noida, 1, [observation(name or "-", name) for name in ids])
        records = poll(joined(noida, [topic]), len(ids))
        assert [(record.id, record.task) for record in records] == [(name, name or "-") for name in ids]

    def test_cloud_events_and_plain_json_lie_side_by_side(
        self, noida: Broker, joined: Callable[..., KafkaLog]
    ) -> None:
        topic = topic_of(noida, 1, [observation("ann", "e1")])
        append(noida, topic, [observation("ann", "e2")], [("ce_id", b"c2"), ("ce_type", b"shop")])
        records = poll(joined(noida, [topic]), 2)
        assert [record.id for record in records] == ["e1", "c2"]
        assert list(records[1].headers) == [("ce_id", b"c2"), ("ce_type", b"shop")]
        assert abs(records[0].appended_s - time.time()) < 60

    def test_a_header_whose_name_is_not_utf_8_lets_the_partition_move_on(
        self, noida: Broker, joined: Callable[..., KafkaLog], library: str
    ) -> None:
        """The interpreter calls a method otherwise once it has called it some times: hence so many."""
        topic = topic_of(noida, 1, many(30))
        append(noida, topic, many(1, first=30), [(NotUtf8("name"), b"value"), ("ce_id", b"c2")] * 2)
        append(noida, topic, many(30, first=31))
        records = poll(joined(noida, [topic]), 61)
        assert [record.id for record in records if record.fault is None] == [
            f"e{n}" for n in range(61) if n != 30
        ]
        refused = records[30]
        assert re.match(rf"{library}.* is no UTF-8", str(refused.fault))
        if library == "confluent":  # kafka-python loses key and value too
            assert [(refused.key, refused.raw)] == many(1, first=30)
            assert refused.headers == ()

    def test_a_topic_that_does_not_exist_is_named(
        self, noida: Broker, joined: Callable[..., KafkaLog], produced: Callable[..., KafkaOutputs]
    ) -> None:
        with pytest.raises(InputError, match=r"no topic nowhere.*topics create"):
            joined(noida, ["nowhere"])
        with pytest.raises(InputError, match=r"no topic nowhere.*topics create"):
            produced(noida, "nowhere")


class TestExpiredOffsets:
    """Only noida tells that an offset is out of range; it has no retention to expire them, so they are deleted."""

    def topic(self, broker: Broker, joined: Any) -> str:
        topic = topic_of(broker, 1, many(10))
        clock = Clock()
        log = joined(broker, [topic], clock=clock)
        records: list[Record] = []
        poll_until([log], lambda: len(records) >= 3, records)
        log.commit({(0, 0): 3})
        clock.now += 60.0
        log.close()
        expire(broker, topic, 6)
        return topic

    def test_stop_the_worker(self, noida: Broker, joined: Callable[..., KafkaLog]) -> None:
        topic = self.topic(noida, joined)
        with pytest.raises(InputError, match=rf"{topic} partition 0: offset 3 .* starts at 6: 3 are lost"):
            poll(joined(noida, [topic]), 1)

    @pytest.mark.parametrize("library", ["kafka-python"])
    def test_a_reader_of_a_topic_passes_over_them_loudly(self, noida: Broker, library: str) -> None:
        from streams.logs.kafka.reader import KafkaTopicReader

        topic = topic_of(noida, 1, many(10))
        expire(noida, topic, 6)
        reader = KafkaTopicReader(Connection(noida.servers), topic)
        with pytest.warns(
            RuntimeWarning, match="offset 2 is to be read next, the log now starts at 6: 4 are lost"
        ):
            found, _ = read(reader, {0: 2}, 4)
        assert [message.offset for message in found] == [6, 7, 8, 9]
        assert reader.skipped == 4
        reader.close()

    def test_are_skipped_loudly(self, noida: Broker, joined: Callable[..., KafkaLog]) -> None:
        log = joined(noida, [self.topic(noida, joined)], expired="skip")
        with pytest.warns(RuntimeWarning, match="3 are lost"):
            records = poll(log, 4)
        assert [record.offset for record in records] == [6, 7, 8, 9]
        assert log.skipped == {(0, 0): 3}


class TestOutputs:
    def test_lines_of_a_key_lie_in_one_partition_in_order(
        self, noida: Broker, produced: Callable[..., KafkaOutputs]
    ) -> None:
        topic = topic_of(noida, 4)
        outputs = produced(noida, topic)
        keys = [f"task{n % 5}".encode() for n in range(200)]
        outputs.topic(topic).append([str(n).encode() for n in range(200)], keys)
        outputs.topic(topic).sync()
        found = messages(noida, topic, 200)
        for key in set(keys):
            mine = sorted((m.partition, m.offset, int(m.value)) for m in found if m.key == key)
            assert len({partition for partition, _, _ in mine}) == 1
            assert [n for _, _, n in mine] == [n for n in range(200) if keys[n] == key]

    def test_both_libraries_put_a_key_into_the_same_partition_as_kafka_itself(
        self, noida: Broker, produced: Callable[..., KafkaOutputs]
    ) -> None:
        topic = topic_of(noida, 7)
        keys = [b"", b"a", b"ab", b"abc", b"abcd", "ü🙂".encode(), b"\xff\0\xfe", b"x" * 1000]
        outputs = produced(noida, topic)
        outputs.topic(topic).append(keys, keys)
        outputs.sync()
        append(noida, topic, zip(keys, keys, strict=True))
        places: dict[bytes, set[int]] = {}
        for message in messages(noida, topic, 2 * len(keys)):
            places.setdefault(message.key, set()).add(message.partition)
        assert all(len(partitions) == 1 for partitions in places.values())

    def test_a_dead_letter_is_the_message_as_it_came_and_why(
        self, noida: Broker, produced: Callable[..., KafkaOutputs]
    ) -> None:
        topic = topic_of(noida, 1)
        outputs = produced(noida, topic)
        came = Record(
            5,
            Kind.OBSERVATION,
            None,
            None,
            None,
            raw=b"\xff\0",
            key=b"\xfe",
            headers=[("a", b"\xfd"), ("a", b"")],
        )
        null = came._replace(raw=b"", fault=NULL_VALUE)
        letters = outputs.dead_letters(topic, lambda record: f"offset {record.offset}")
        letters.append(
            [Rejected(came, "malformed", "not JSON \ud800"), Rejected(null, "malformed", NULL_VALUE)]
        )
        letters.sync()
        first, second = messages(noida, topic, 2)
        assert (first.key, first.value, second.value) == (b"\xfe", b"\xff\0", None)
        assert list(first.headers) == [
            ("a", b"\xfd"), ("a", b""), ("reptide_reason", b"malformed"), ("reptide_detail", b"not JSON \\ud800"),
            ("reptide_origin", b"offset 5"),
        ]  # fmt: skip

    def test_everything_refused_by_a_fold_reaches_the_dead_letters_byte_for_byte(
        self, noida: Broker, joined: Callable[..., KafkaLog], produced: Callable[..., KafkaOutputs]
    ) -> None:
        sent = [(b"k", b"{"), (b"\xff", b"{}"), (b"k", None), (b"", b"\0" * 100), (b"k", b'{"task": "a"}')]
        topic, letters = topic_of(noida, 1, sent), topic_of(noida, 1)
        log, outputs = joined(noida, [topic]), produced(noida, letters)
        polled: list[Polled] = []
        deadline = time.monotonic() + PATIENCE_S
        while sum(len(part.records) for part in polled) < 5 and time.monotonic() < deadline:
            polled += log.poll(10, 0.2)
        problem = Problem(Features((Numeric("a"),)), Classification((0, 1)))
        outputs.dead_letters(letters, log.origin).append(decode(polled, problem).rejected)
        outputs.sync()
        assert sorted(map(repr, ((m.key, m.value) for m in messages(noida, letters, 5)))) == sorted(
            map(repr, sent)
        )

    def test_of_messages_sent_no_more_than_so_many_are_kept(
        self,
        noida: Broker,
        produced: Callable[..., KafkaOutputs],
        library: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        if library == "confluent":
            pytest.skip("librdkafka tells of failures alone, and the first is kept")
        monkeypatch.setattr("streams.logs.kafka.kafka_python.producer.UNSETTLED", 8)
        monkeypatch.setattr("streams.logs.kafka.kafka_python.producer.AT_ONCE", 100)
        monkeypatch.setattr("streams.logs.kafka.kafka_python.batches.BATCH_BYTES", 400)
        topic = topic_of(noida, 1)
        outputs = produced(noida, topic)
        outputs.topic(topic).append([b"x"] * 1000)
        producer: Any = outputs._producer
        assert len(producer._pending) < 8
        outputs.sync()
        assert producer._pending == []
        assert len(messages(noida, topic, 1000)) == 1000

    def test_a_message_beyond_the_topics_limit_names_the_setting(
        self, noida: Broker, produced: Callable[..., KafkaOutputs]
    ) -> None:
        topic = topic_of(noida, 1)
        outputs = produced(noida, topic)
        with pytest.raises(ReptideError, match=r"max\.message\.bytes"):
            outputs.topic(topic).append([os.urandom(5 << 20)], [b"k"])
            outputs.sync()

    def test_messages_that_are_together_beyond_the_topics_limit_name_the_setting(
        self, noida: Broker, produced: Callable[..., KafkaOutputs]
    ) -> None:
        topic = topic_of(noida, 1, limits={"max.message.bytes": "3000"})
        outputs = produced(noida, topic)
        with pytest.raises(InputError, match=r"max\.message\.bytes"):
            outputs.topic(topic).append([os.urandom(500) for _ in range(20)], [b"k"] * 20)
            outputs.sync()

    def test_a_stalled_broker_is_unavailable_and_then_works_again(
        self, noida: Broker, produced: Callable[..., KafkaOutputs]
    ) -> None:
        topic = topic_of(noida, 1)
        outputs = produced(noida, topic, timeout_s=1.0)

        def works(value: bytes) -> bool:
            with suppress(Unavailable):  # a second may not be enough where everything waits for a processor
                outputs.topic(topic).append([value], [b"k"])
                outputs.sync()
                return True
            return False

        eventually(lambda: works(b"before"))
        with noida.stalled(), pytest.raises(Unavailable, match="does not answer"):
            outputs.topic(topic).append([b"lost"], [b"k"])
            outputs.sync()
        eventually(lambda: works(b"again"))
        reader_saw = {message.value for message in messages_at_least(noida, topic, {b"before", b"again"})}
        assert {b"before", b"again"} <= reader_saw

    def test_a_reader_goes_on_from_the_positions_it_is_given(self, noida: Broker) -> None:
        from streams.logs.kafka.reader import KafkaTopicReader

        topic = topic_of(noida, 2, many(50))
        reader = KafkaTopicReader(Connection(noida.servers), topic)
        first, positions = read(reader, {}, 50)
        assert positions == reader.end()
        some = {partition: end // 2 for partition, end in positions.items()}
        rest, _ = read(reader, some, sum(positions.values()) - sum(some.values()))
        assert sorted(rest) == sorted(m for m in first if m.offset >= some[m.partition])
        reader.close()


class TestBrokerAway:
    def test_trying_again_and_again_leaves_nothing_open(
        self, library: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("streams.logs.kafka.kafka_python.client.BOOTSTRAP_MS", 200)
        monkeypatch.setattr("streams.logs.kafka.confluent.client.ANSWER_S", 0.2)
        attempts: list[Callable[[], object]] = [
            lambda: group_of(library)(Connection("127.0.0.1:1"), "g", ["t"], Envelope(), *SESSION),
            lambda: producer_of(library)(Connection("127.0.0.1:1"), ["t"]),
        ]
        threads = threading.active_count()
        for attempt in attempts * 2:
            with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1 does not answer for"):
                attempt()
        eventually(lambda: threading.active_count() <= threads)

    def test_a_stall_is_waited_out_by_a_member(self, noida: Broker, joined: Callable[..., KafkaLog]) -> None:
        topic = topic_of(noida, 1, many(5))
        clock = Clock()
        log = joined(noida, [topic], durability_lag_s=0.0, clock=clock)
        records: list[Record] = []
        poll_until([log], lambda: len(records) == 5, records)
        with noida.stalled():
            clock.now += 30.0  # a commit is due, and a question to the brokers is not
            log.commit({(0, 0): 5})
            assert log.poll(10, 0.5) == []
        append(noida, topic, many(5, first=5))
        poll_until([log], lambda: len(records) == 10, records)
        assert [record.offset for record in records] == list(range(10))


class TestSecrets:
    def test_no_message_holds_one(
        self, library: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr("streams.logs.kafka.kafka_python.client.BOOTSTRAP_MS", 200)
        monkeypatch.setattr("streams.logs.kafka.confluent.client.ANSWER_S", 0.2)
        caplog.set_level("DEBUG")
        caplog.set_level("DEBUG", "kafka")  # ours is higher, until somebody looks for a fault
        login = {"sasl_plain_username": "ann", "sasl_plain_password": SECRET}
        security = {"security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512", **login}
        changes: list[dict[str, str]] = [
            {}, {"ssl_password": SECRET},
            {"security_protocol": "PLAINTEXT"}, {"sasl_mechanism": "PLAIN"}, {"security_protocol": SECRET},
            {"sasl_mechanism": SECRET}, {"ssl_cafile": f"/{SECRET}"}, {"ssl_check_hostname": SECRET},
            {"sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_function": SECRET},
        ]  # fmt: skip
        for change in changes:
            for connect in (
                lambda connection: group_of(library)(connection, "g", ["t"], Envelope()),
                lambda connection: producer_of(library)(connection, ["t"]),
            ):
                with pytest.raises(ReptideError) as caught:
                    connect(Connection("127.0.0.1:1", security | change))
                assert SECRET not in str(caught.value)
                assert caught.value.__suppress_context__ or caught.value.__context__ is None
        assert SECRET not in repr(Connection("127.0.0.1:1", security))
        gc.collect()
        assert SECRET not in caplog.text

    def test_an_unknown_setting_is_named_without_its_value(self) -> None:
        with pytest.raises(SettingsError, match="sasl_pasword") as caught:
            Connection("h:1", {"sasl_pasword": SECRET})
        assert SECRET not in str(caught.value)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class NotUtf8(str):
    """The name of a header, as a program in another language may write it."""

    def encode(self, *_: object) -> bytes:
        return b"\xff\xfe"


def eventually(so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def delete(broker: Broker, topic: str) -> None:
    from kafka import KafkaAdminClient

    admin = KafkaAdminClient(bootstrap_servers=broker.servers)
    admin.delete_topics([topic])
    admin.close()


def expire(broker: Broker, topic: str, below: int) -> None:
    """Cut the log's beginning off, as retention would."""
    from kafka import KafkaAdminClient, TopicPartition

    admin = KafkaAdminClient(bootstrap_servers=broker.servers)
    admin.delete_records({TopicPartition(topic, 0): below})
    admin.close()


def read(reader: KafkaTopicReader, positions: dict[int, int], count: int) -> tuple[list[Any], dict[int, int]]:
    found: list[Any] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(found) < count and time.monotonic() < deadline:
        some, positions = reader.read(positions, 20, 0.2)
        found += some
    assert len(found) == count
    return found, positions


def messages_at_least(broker: Broker, topic: str, values: Iterable[bytes]) -> list[Any]:
    """Messages of a topic until all of these are among them: what timed out may have arrived all the same."""
    from streams.logs.kafka.reader import KafkaTopicReader

    reader, found = KafkaTopicReader(Connection(broker.servers), topic), list[Any]()
    positions: dict[int, int] = {}
    deadline = time.monotonic() + PATIENCE_S
    while not set(values) <= {m.value for m in found} and time.monotonic() < deadline:
        some, positions = reader.read(positions, 1000, 0.2)
        found += some
    reader.close()
    return found

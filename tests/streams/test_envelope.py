"""Messages of Kafka as records: CloudEvents and plain JSON, and whatever else somebody sends."""

from __future__ import annotations

from math import isnan
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.features.columns import Numeric
from engine.features.encoder import Features
from engine.problem import Problem
from engine.targets import Classification
from engine.types import Kind
from streams.events.decoding import decode
from streams.events.envelope import Envelope, value_of
from streams.events.record import NULL_VALUE, Polled, Record

PROBLEM = Problem(Features((Numeric("amount"),)), Classification((0, 1)))

BODY: dict[str, object] = {"task": "ann", "id": "e1", "time": 12.5, "features": {"amount": 1.5}}


def opened(
    body: dict[str, object] | None = BODY,
    *,
    key: bytes | None = None,
    headers: Any = (),
    topic: int = 0,
    envelope: Envelope | None = None,
    value: bytes | None = b"",
) -> Record:
    value = value if body is None else orjson.dumps(body)
    return (envelope or Envelope()).open((topic, 3), 17, key, value, headers, 1500)


def without(name: str) -> dict[str, object]:
    return {key: value for key, value in BODY.items() if key != name}


class TestPlainJson:
    def test_an_observation(self) -> None:
        record = opened()
        assert (record.kind, record.task, record.id, record.time) == (Kind.OBSERVATION, "ann", "e1", 12.5)
        assert (record.label, record.fields, record.fault) == (None, {"amount": 1.5}, None)

    def test_where_and_when_it_was_appended(self) -> None:
        record = opened(key=b"ann")
        assert (record.topic, record.partition, record.offset, record.appended_s) == (0, 3, 17, 1.5)

    def test_a_message_without_a_timestamp_has_none(self) -> None:
        assert isnan(Envelope().open((0, 0), 0, None, b"{}", None, -1).appended_s)

    @pytest.mark.parametrize("label", [1, "yes", 0, False, None])
    def test_a_body_with_a_label_is_a_label_even_a_null_one(self, label: int | str | None) -> None:
        record = opened(BODY | {"label": label})
        assert (record.kind, record.id, record.label) == (Kind.LABEL, "e1", label)

    def test_a_label_needs_no_features(self) -> None:
        assert opened(without("features") | {"label": 1}).fields is None

    def test_the_key_is_the_task_where_the_body_has_none(self) -> None:
        assert opened(without("task"), key="bob ü".encode()).task == "bob ü"
        assert opened(key=b"bob").task == "ann"

    def test_the_key_may_be_anything_where_the_body_has_the_task(self) -> None:
        record = opened(key=b"\xff")
        assert (record.task, record.key, record.fault) == ("ann", b"\xff", None)

    def test_unknown_members_are_ignored(self) -> None:
        assert opened(BODY | {"more": [1]})[:7] == opened()[:7]


class TestKeys:
    """A key is the task where the body has none."""

    @pytest.mark.parametrize(
        ("key", "task"),
        [
            (b"alice", "alice"),
            (b'"alice"', "alice"),
            (b'"a\\u00fc"', "a\u00fc"),
            (b"42", "42"),
            (b'"42"', "42"),
        ],
    )
    def test_text_is_the_task_as_it_is_or_as_json_writes_it(self, key: bytes, task: str) -> None:
        assert opened(without("task"), key=key).task == task

    @pytest.mark.parametrize("key", [b'"', b'"alice', b"{slot}", b"[a", b'a"b'])
    def test_what_only_begins_like_json_is_text(self, key: bytes) -> None:
        assert opened(without("task"), key=key).task == key.decode()

    @pytest.mark.parametrize("key", [b"null", b"", b'""'])
    def test_no_key_is_no_task(self, key: bytes) -> None:
        record = opened(without("task"), key=key)
        assert (record.task or None, record.fault) == (None, None)

    @pytest.mark.parametrize("key", [b"\0\0\0\0\1\nalice", b"\0\0\0\7", b"\x0aalice", b"\xff\xfe"])
    def test_bytes_are_refused_with_the_way_out(self, key: bytes) -> None:
        fault = opened(without("task"), key=key).fault or ""
        assert f"the key {key!r} is not" in fault
        assert 'send the task as plain text, or name it in the body as "task"' in fault

    @pytest.mark.parametrize(("key", "kind"), [(b'{"id": 1}', "dict"), (b"[1]", "list")])
    def test_json_that_is_no_text_is_refused_with_the_way_out(self, key: bytes, kind: str) -> None:
        fault = opened(without("task"), key=key).fault or ""
        assert f"is a JSON {kind}" in fault
        assert "name it in the body" in fault


class TestTheFuture:
    @pytest.mark.parametrize(("skew_s", "refused"), [(10.0, True), (11.0, False)])
    def test_an_event_later_than_its_message_and_the_skew_is_bad_time(
        self, skew_s: float, refused: bool
    ) -> None:
        record = opened(BODY | {"time": 12.5}, envelope=Envelope(clock_skew_s=skew_s))
        assert record.appended_s + skew_s == record.latest_s
        decoded = decode([Polled(3, (1,), 17, [record])], PROBLEM)
        assert [one.reason for one in decoded.rejected] == ["bad_time"] * refused

    def test_without_a_timestamp_there_is_no_bound(self) -> None:
        body = orjson.dumps(BODY | {"time": "2096-01-01"})
        record = Envelope(clock_skew_s=1.0).open((0, 3), 17, None, body, None, -1)
        assert not decode([Polled(3, (1,), 17, [record])], PROBLEM).rejected


class TestCloudEvents:
    HEADERS = (("ce_id", b"c9"), ("ce_time", b"2024-01-01T00:00:00Z"), ("ce_type", b"shop.order"))

    def test_its_id_is_the_observations(self) -> None:
        assert opened(headers=self.HEADERS).id == "c9"

    def test_a_label_names_its_observation_in_the_body(self) -> None:
        assert opened(BODY | {"label": 1}, headers=self.HEADERS).id == "e1"
        assert opened(without("id") | {"label": 1}, headers=self.HEADERS).id == "c9"

    def test_its_time_is_the_events_where_the_body_has_none(self) -> None:
        assert opened(headers=self.HEADERS).time == 12.5
        assert opened(without("time"), headers=self.HEADERS).time == "2024-01-01T00:00:00Z"
        assert opened(without("time")).time is None

    def test_another_schema_is_refused_by_both_names(self) -> None:
        record = opened(headers=(("ce_dataschema", b"v2"),), envelope=Envelope(dataschema="v1"))
        assert record.fault == "ce_dataschema is 'v2', the schema configured is 'v1'"

    @pytest.mark.parametrize("envelope", [Envelope(), Envelope(dataschema="v2")])
    def test_the_schema_configured_is_accepted_and_any_where_none_is(self, envelope: Envelope) -> None:
        assert opened(headers=(("ce_dataschema", b"v2"),), envelope=envelope).fault is None

    def test_an_event_without_a_schema_is_accepted(self) -> None:
        assert opened(headers=self.HEADERS, envelope=Envelope(dataschema="v1")).fault is None


class TestTwoTopics:
    def test_the_topic_decides_the_kind(self) -> None:
        envelope = Envelope(topics=2)
        assert opened(BODY | {"label": 1}, envelope=envelope).kind == Kind.OBSERVATION
        label = opened(envelope=envelope, topic=1)
        assert (label.kind, label.label) == (Kind.LABEL, None)

    def test_a_fault_has_the_kind_of_its_topic(self) -> None:
        assert opened(None, value=b"x", topic=1, envelope=Envelope(topics=2)).kind == Kind.LABEL


class TestWhatCannotBeRead:
    @pytest.mark.parametrize(
        ("value", "fault"),
        [
            (b"", "not JSON"),
            (b"{", "not JSON"),
            (b"\xff\xfe", "not JSON"),
            (b'{"time": NaN}', "not JSON"),
            (b"[" * 2000, "not JSON"),
            (b"[1]", "expected a JSON object, got list"),
            (b"null", "expected a JSON object, got NoneType"),
            (b" " * (1 << 20) + b"{}", "longer than 1048576 bytes"),
        ],
    )
    def test_is_a_record_with_a_fault_and_the_bytes_as_they_came(self, value: bytes, fault: str) -> None:
        record = opened(None, value=value, key=b"k", headers=(("a", b"\xff"),))
        assert (record.fault or "").startswith(fault)
        assert (record.raw, record.key, record.headers) == (value, b"k", (("a", b"\xff"),))

    def test_no_value_is_told_from_an_empty_one(self) -> None:
        null, empty = opened(None, value=None), opened(None, value=b"")
        assert null.fault == NULL_VALUE
        assert (value_of(null), value_of(empty)) == (None, b"")

    @pytest.mark.parametrize(
        ("key", "task"), [(b"ann", "ann"), (b'"ann"', "ann"), (b"\xff", None), (b"\0ann", None), (None, None)]
    )
    def test_of_no_value_the_key_says_which_task_it_is_about(
        self, key: bytes | None, task: str | None
    ) -> None:
        assert opened(None, value=None, key=key).task == task

    @pytest.mark.parametrize("header", ["ce_id", "ce_time", "ce_dataschema"])
    def test_a_header_that_is_not_text_is_named(self, header: str) -> None:
        assert opened(headers=((header, b"\xff"),)).fault == f"header {header} is not UTF-8"

    def test_a_key_that_is_not_text_is_named_where_it_is_needed(self) -> None:
        fault = opened(without("task"), key=b"\xff").fault or ""
        assert fault.startswith("the key b'\\xff' is not UTF-8; send the task as plain text")

    def test_headers_that_are_not_read_may_hold_anything(self) -> None:
        assert opened(headers=(("x", b"\xff"), ("x", b""), ("ce_id", None))).id == "e1"


@given(st.binary() | st.none(), st.binary() | st.none(), st.lists(st.tuples(st.text(), st.binary())))
def test_any_message_is_a_record(value: Any, key: Any, headers: list[Any]) -> None:
    record = Envelope(dataschema="v1").open((0, 0), 5, key, value, headers, 0)
    assert (value_of(record), record.key, record.headers) == (value, key, headers or ())

"""Whatever bytes come in: no crash, no hang, no traceback, and nothing dropped in silence."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
from hypothesis import strategies as st

from engine.features.columns import Category, Cyclic, Numeric, Text
from engine.features.encoder import Features
from engine.problem import Problem
from engine.stream.fold import Engine
from engine.stream.spec import Memory, StreamSpec
from engine.stream.table import RowError, TaskTable
from engine.targets import Classification, Regression
from engine.types import Kind, Meta, Outcome
from streams.errors import InputError, ReptideError
from streams.events.decoding import Decoded, decode
from streams.events.envelope import Envelope
from streams.events.learned_labels import LabelReader
from streams.events.record import Polled, Record
from streams.logs.file.log import FileLog, TableColumns
from streams.operate.snapshots.folder import Draft, opened
from streams.operate.snapshots.rows import packed, pages
from streams.program.embedded import steps
from streams.settings.tree import load_settings
from streams.stores.sealed import sealed, unsealed
from tests.faults.model import GRID, World, stream
from tests.faults.model import SPEC as SMALL
from tests.fuzz.hostile import Content, damaged, hostile, wild
from tests.streams.test_checkpoints import checkpoint, same
from tests.streams.test_learned_labels import check_sound

FEATURES = Features((Numeric("a", optional=True), Category("c"), Cyclic("d", 7.0), Text("t")))
SPECS = (
    StreamSpec(Problem(FEATURES, Classification(("no", "yes", "1")), support=4), Memory(pending=3)),
    StreamSpec(Problem(FEATURES, Regression(-5.0, 5.0), support=4), Memory(pending=3)),
)
LONGEST_SAID = 1000


@cache
def engine(regression: bool) -> Engine:
    return Engine(SPECS[regression])


def nothing_is_lost(records: Sequence[Record], regression: bool) -> None:
    """Each record is an event that can be folded, or is refused in a sentence."""
    decoded = decode([Polled(0, (1,), 0, records)], SPECS[regression].problem)
    kept = {record.offset for record in decoded.records}
    refused = {rejected.record.offset for rejected in decoded.rejected}
    assert len(decoded.events) == len(kept)
    assert kept | refused == {record.offset for record in records}
    assert not kept & refused
    for rejected in decoded.rejected:
        assert rejected.reason.replace("_", "").isalpha()
        assert 0 < len(rejected.detail) <= LONGEST_SAID
    can_be_folded(decoded, regression)


def can_be_folded(decoded: Decoded, regression: bool) -> None:
    folding = engine(regression)
    folded = folding.fold(TaskTable.empty(folding.layout, decoded.tasks), decoded.events, Meta(0, {}))
    served = np.isin(folded.outcomes.code, [Outcome.PREDICTED, Outcome.SCORED])
    assert np.isfinite(folded.outcomes.prediction[served]).all()
    assert (folded.states.rows["clock_s"][folded.states.rows["seq"] > 0] < np.inf).all()


SETTINGS = b"""stream = "shop"
[input]
path = "visits.csv"
task = ["user"]
time = "at"
label = "bought"
label_time = "known_at"
[[features]]
encoder = "numeric"
name = "amount"
optional = true
[[features]]
encoder = "category"
name = "country"
buckets = 64
[target]
classes = ["no", "yes"]
[model]
hidden = [8]
[memory]
support = 4
ttl_s = 50.0
[drift]
detector = "page-hinkley"
options = {delta = 0.0}
[outer]
every = 64
lr = 0.05
[kafka]
bootstrap = ["127.0.0.1:9092"]
security = {security_protocol = "SSL"}
[redis]
url = "redis://:secret-of-ours@127.0.0.1/0"
"""

BODIES = tuple(
    map(
        orjson.dumps,
        [
            {"task": "ann", "id": "e1", "time": 12.5, "features": {"a": 1.5, "c": "x", "d": 3, "t": "word"}},
            {"task": "ann", "id": "e1", "time": "2024-01-01T00:00:00Z", "label": "yes"},
            {"task": 7, "id": 9, "time": 1.7e9, "label": 1, "features": {"a": None, "c": 1, "d": 1, "t": ""}},
        ],
    )
)

messages = st.tuples(
    st.none() | damaged(b"ann", b"\x00\x00\x00\x00\x01ann", b'"ann"'),
    st.none() | damaged(*BODIES),
    st.none()
    | st.lists(
        st.tuples(
            st.sampled_from(["ce_id", "ce_time", "ce_dataschema", "other", ""]),
            st.none() | damaged(b"e1", b"2024-01-01T00:00:00Z"),
        ),
        max_size=3,
    ),
    st.integers(-1, 2**62),
)


@hostile(
    each=10,
    sent=st.lists(messages, min_size=10, max_size=10),
    topics=st.sampled_from([1, 2]),
    regression=st.booleans(),
)
def test_a_message_is_an_event_or_a_dead_letter(sent: Any, topics: int, regression: bool) -> None:
    envelope = Envelope(topics, "v1")
    nothing_is_lost([envelope.open((0, 0), n, *message) for n, message in enumerate(sent)], regression)


records = st.builds(
    Record,
    offset=st.just(0),
    kind=st.sampled_from(Kind),
    task=wild | st.just("ann"),
    id=wild | st.just("e1"),
    time=wild | st.just(12.5),
    label=wild | st.sampled_from(["yes", 1.0]),
    fields=st.none() | st.fixed_dictionaries(dict.fromkeys("acdt", wild)),
    line=st.just(1),
    raw=st.none() | st.binary(max_size=5),
    fault=st.none(),
    topic=st.just(0),
    partition=st.just(0),
    key=st.none(),
    headers=st.just(()),
    appended_s=st.floats(0, 4e9) | st.just(float("nan")),
    latest_s=st.floats(0, 4e9) | st.just(float("inf")),
)


@hostile(each=10, drawn=st.lists(records, min_size=10, max_size=10), regression=st.booleans())
def test_a_record_of_any_values_is_an_event_or_a_dead_letter(drawn: list[Record], regression: bool) -> None:
    nothing_is_lost([record._replace(offset=n) for n, record in enumerate(drawn)], regression)


TABLE = pl.DataFrame(
    {
        "user": ["ann", "bob", "ann, b", 'q"x'],
        "at": ["2024-01-01", "2024-01-02T00:00:00Z", "1704240000", "2024-01-04"],
        "a": [1.5, None, 2.0, -1.0],
        "c": ["x", "y", "z", ""],
        "d": [1, 2, 3, 4],
        "t": ["word", "two words", "line\nbreak", ""],
        "y": ["yes", None, "no", "yes"],
        "late": ["2024-01-02", "", "2024-01-05", "2024-01-04"],
    }
)
COLUMNS = TableColumns(task=("user",), time="at", label="y", label_time="late")


def as_bytes(kind: str) -> bytes:
    written = BytesIO()
    write: dict[str, Callable[[BytesIO], object]] = {
        "csv": TABLE.write_csv,
        "jsonl": TABLE.write_ndjson,
        "parquet": TABLE.write_parquet,
    }
    write[kind](written)
    return written.getvalue()


def read_whole(content: bytes, kind: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"table.{kind}"
        path.write_bytes(content)
        try:
            log = FileLog(path, COLUMNS, FEATURES)
        except InputError as error:
            assert str(path) in str(error)
            return
        offset = 0
        while polled := log.poll(3):
            for part in polled:
                assert [record.offset for record in part.records] == list(
                    range(offset, offset + len(part.records))
                )
                offset += len(part.records)
                nothing_is_lost(part.records, regression=False)
        assert offset == log.end()


@hostile(content=damaged(as_bytes("csv")))
def test_a_csv_file_is_read_to_its_end_or_refused(content: bytes) -> None:
    read_whole(content, "csv")


@hostile(content=damaged(as_bytes("jsonl")))
def test_a_file_of_json_lines_is_read_to_its_end_or_refused(content: bytes) -> None:
    read_whole(content, "jsonl")


@hostile(content=damaged(as_bytes("parquet")))
def test_a_parquet_file_is_read_to_its_end_or_refused(content: bytes) -> None:
    read_whole(content, "parquet")


@cache
def rows(regression: bool) -> tuple[TaskTable, list[bytes]]:
    """Rows of two tasks that have seen something."""
    folding = engine(regression)
    records = [
        Record(
            n,
            Kind(n % 2),
            f"task {n % 4 // 2}",
            f"e{n // 2}",
            60.0 * n,
            "1",
            {"a": n, "c": n, "d": n, "t": "x"},
        )
        for n in range(40)
    ]
    decoded = decode([Polled(0, (1,), 0, records)], SPECS[regression].problem)
    folded = folding.fold(TaskTable.empty(folding.layout, decoded.tasks), decoded.events, Meta(0, {}))
    return folded.states, [bytes(row) for row in folded.states.encode()]


@hostile(
    edited=st.deferred(lambda: damaged(*rows(False)[1], *rows(True)[1])),
    task=st.integers(0, 1),
    regression=st.booleans(),
)
def test_a_row_is_what_was_written_or_refused(edited: bytes, task: int, regression: bool) -> None:
    states, written = rows(regression)
    try:
        TaskTable.decode(states.layout, [states.ids[task]], [edited])
    except RowError as error:
        assert states.ids[task] in str(error)
    else:
        assert edited in written


HEAD, TENSORS = sealed(checkpoint())


@hostile(head=st.just(Content(HEAD)) | damaged(HEAD), tensors=st.just(Content(TENSORS)) | damaged(TENSORS))
def test_a_version_of_theta_is_what_was_written_or_refused(head: bytes, tensors: bytes) -> None:
    try:
        again = unsealed(head, tensors)
    except ValueError as error:
        assert str(error)
    else:
        assert same(again, checkpoint())


@hostile(
    content=st.just(SETTINGS) | damaged(SETTINGS),
    flags=st.lists(
        damaged(b"outer.lr=0.1", b"features=[]", b"kafka.security.sasl_mechanism=PLAIN"), max_size=2
    ),
    environment=st.dictionaries(
        st.sampled_from(
            ["REPTIDE_OUTER__LR", "REPTIDE_INPUT__TASK", "REPTIDE_PORT", "REPTIDE_", "REPTIDE___X"]
        ),
        damaged(b"0.1", b'["user"]', b"tcp://10.0.0.1:80"),
        max_size=2,
    ),
)
def test_settings_are_taken_or_refused_in_a_sentence(
    content: bytes, flags: list[bytes], environment: dict[str, bytes]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shop.toml"
        path.write_bytes(content)
        variables = {name: value.decode("utf-8", "surrogateescape") for name, value in environment.items()}
        try:
            load_settings(path, variables, [flag.decode("utf-8", "surrogateescape") for flag in flags])
        except ReptideError as error:
            assert "secret-of-ours" not in str(error)
            assert str(error)


@cache
def learned() -> list[bytes]:
    """Lines of `episodes` that a worker wrote."""
    world = World(stream(3, 60))
    for _ in steps(world.program(GRID)):
        pass
    return world.outputs["episodes"].lines


@hostile(line=st.deferred(lambda: damaged(*learned())))
def test_a_line_of_episodes_can_be_trained_on_or_is_told(line: bytes) -> None:
    [one] = LabelReader(SMALL).read([line])
    if isinstance(one, str):
        assert one.startswith(("cannot be read", "is not of this stream spec"))
    else:
        check_sound(one)


@cache
def snapshot() -> dict[str, bytes]:
    """The files of a small snapshot."""
    with tempfile.TemporaryDirectory() as folder:
        draft = Draft(Path(folder))
        draft.add("rows", packed((f"task {n}", row) for n, row in enumerate(rows(regression=False)[1])))
        draft.add("theta/00000001.json", HEAD)
        draft.seal({"kind": "deployment", "positions": {"0": 12}})
        return {
            name: (Path(folder) / name).read_bytes()
            for name in ("snapshot.json", "rows", "theta/00000001.json")
        }


def sound_or_damaged(name: str) -> st.SearchStrategy[bytes]:
    """A file of the snapshot as it was written, or not."""
    return st.deferred(lambda: st.just(Content(snapshot()[name])) | damaged(snapshot()[name]))


@hostile(
    description=sound_or_damaged("snapshot.json"),
    stored=sound_or_damaged("rows"),
)
def test_a_snapshot_is_what_was_written_or_refused(description: bytes, stored: bytes) -> None:
    written = snapshot() | {"snapshot.json": description, "rows": stored}
    with tempfile.TemporaryDirectory() as name:
        for file, content in written.items():
            path = Path(name) / file
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        try:
            folder = opened(Path(name))
            folder.check()
            there = [row for page in pages(folder.pieces("rows"), len(rows(False)[1][0])) for _, row in page]
        except InputError as error:
            assert name in str(error)
        else:
            assert folder.described == {"kind": "deployment", "positions": {"0": 12}, "format": 1}
            assert folder.files.keys() | {"snapshot.json"} == written.keys()
            assert [bytes(row) for row in there] == rows(False)[1]

"""Lines are formatted from columns; each is, byte for byte, the JSON of what it says."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from engine.features.columns import Category, Numeric
from engine.features.encoder import Features
from engine.problem import Problem
from engine.stream.events import DTYPES, EventBatch
from engine.targets import Classification, Regression
from engine.types import PREDICTORS, Episode, Kind, Outcome, Outcomes
from streams.events.column_text import numbers_text, values_text
from streams.events.columns import ids_of
from streams.events.decoding import decode
from streams.events.label_lines import columns_of_labels, lines_of
from streams.events.learned_labels import LearnedLabel, read_learned
from streams.events.reading import Rejected
from streams.events.record import SourcePosition, incarnation_text
from streams.logs.file.log import FileLog, TableColumns
from streams.logs.memory import MemoryOutput
from streams.program.outcome_lines import DIGITS, outcome_lines, rounded
from streams.program.outputs import DeadLetterLines

TARGETS: list[Classification | Regression] = [
    Classification(("no", 'y"es,\n', "ü"), reserve=5),
    Classification((0, 1)),
    Regression(-1e6, 1e6),
]
PROBLEMS = [Problem(Features((Numeric("a"),)), target) for target in TARGETS]

floats = (
    st.floats(-1e300, 1e300)
    | st.just(math.nan)
    | st.sampled_from([0.1, 0.05, 0.0999999999, 1e-7, 1e-300, 0.5, 0.0, -0.0, 1e22])
)
whole = st.integers(0, 2**63 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
ids = (
    texts
    | st.sampled_from(['a","b', 'a",', ",", '",\n  "', "\\"])
    | whole
    | st.floats(0, 2**53).map(math.floor)
)


def written(value: float) -> float:
    """A number to six decimals, or below .1 to six significant digits."""
    if not math.isfinite(value) or value == 0:
        return value
    zeros = min(max(0, -1 - math.floor(np.log10(np.abs([value]))[0])), 200)
    scale = float(f"1e{DIGITS + zeros}")
    return float(np.round([value * scale])[0]) / scale


def plainly(
    problem: Problem, events: EventBatch, ids: Sequence[Any], tasks: Sequence[str], out: Outcomes
) -> Iterator[tuple[str, int, bytes]]:
    """Output, row and line of what became of each event, one after the other."""
    classes = problem.target.classes if isinstance(problem.target, Classification) else None
    for n, code in enumerate(map(Outcome, out.code.tolist())):
        if code == Outcome.DUPLICATE:
            continue
        row, is_label = int(events.row[n]), events.kind[n] == Kind.LABEL
        place = {
            "task": tasks[row], "id": ids[n], "incarnation": incarnation_text(int(events.incarnation[n])),
            "partition": int(events.partition[n]), "offset": int(events.offset[n]), "time": float(events.time_s[n]),
        }  # fmt: skip
        said: dict[str, Any] = place | {"outcome": code.name.lower()}
        if is_label:
            said["label"] = classes[int(events.y[n])] if classes else float(events.y[n])
        if code in (Outcome.PREDICTED, Outcome.SCORED):
            said["version"] = int(out.version[n])
            for name, prediction in zip(PREDICTORS, out.prediction[n].tolist(), strict=True):
                said[name] = [written(share) for share in prediction[: len(classes) if classes else None]]
        if code == Outcome.SCORED:
            said |= {
                "seen": int(out.seen[n]),
                "waited_s": float(out.waited_s[n]),
                "alarm": bool(out.alarm[n]),
            }
            said["loss"] = dict(zip(PREDICTORS, map(written, out.loss[n].tolist()), strict=True))
        if out.expired[n]:
            said["expired"] = int(out.expired[n])
        yield "scores" if is_label else "predictions", row, orjson.dumps(said)
        if out.alarm[n]:
            yield "drifts", row, orjson.dumps(place | {"seen": int(out.seen[n])})


Case = tuple[Problem, EventBatch, list[Any], list[str], Outcomes]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any outcomes of any events."""
    problem = draw(st.sampled_from(PROBLEMS))
    tasks = draw(st.lists(texts, min_size=1, max_size=3, unique=True))
    n, target = draw(st.integers(0, 6)), problem.target

    def column(dtype: Any, of: st.SearchStrategy[Any], *shape: int) -> Any:
        return draw(npst.arrays(dtype, (n, *shape), elements=of))

    single = st.floats(width=32) | st.sampled_from([0.5, 0.0625, 0.0])
    value = (
        st.integers(0, len(target.classes) - 1)
        if isinstance(target, Classification)
        else st.floats(-1e6, 1e6, width=32)
    )
    events = EventBatch(
        row=column(np.int64, st.integers(0, len(tasks) - 1)), kind=column(np.uint8, st.integers(0, 1)),
        id=column(np.uint64, whole), time_s=column(np.float64, st.floats(-1e12, 1e12)),
        x=np.zeros((n, 2), np.float32), has_x=column(np.bool_, st.booleans()),
        y=column(np.float32, value), topic=np.zeros(n, np.int64), offset=column(np.int64, whole),
        partition=column(np.int64, st.integers(0, 99)), incarnation=column(np.uint64, whole),
    )  # fmt: skip
    assert all(getattr(events, name).dtype == dtype for name, dtype in DTYPES.items())
    code = column(np.uint8, st.sampled_from([*Outcome]))
    out = Outcomes(
        code=code, prediction=column(np.float32, single, 5, target.outputs),
        loss=column(np.float64, floats, 5), shared_loss=column(np.float64, floats),
        version=column(np.int64, whole), seen=column(np.int64, whole), waited_s=column(np.float64, floats),
        weight=np.zeros(n), alarm=column(np.bool_, st.booleans()) & (code == Outcome.SCORED),
        adapted=np.zeros(n, np.bool_), expired=column(np.int64, st.integers(0, 3)),
        learned=np.zeros(n, np.int64), learned_x=np.zeros((n, 2), np.float32),
    )  # fmt: skip
    return problem, events, draw(st.lists(ids, min_size=n, max_size=n)), tasks, out


@given(cases())
def test_what_became_of_events_is_the_same_bytes_as_of_each_alone(case: Case) -> None:
    expected: dict[str, list[tuple[int, bytes]]] = {"predictions": [], "scores": [], "drifts": []}
    for topic, row, line in plainly(*case):
        expected[topic].append((row, line))
    said = outcome_lines(*case)
    assert {
        topic: list(zip(rows.tolist(), lines, strict=True)) for topic, (rows, lines) in said.items()
    } == expected


@given(st.lists(ids | floats))
def test_the_text_of_a_column_is_that_of_each_value(values: list[Any]) -> None:
    assert [*values_text(values)] == [orjson.dumps(value) for value in values]


def test_a_whole_number_of_more_than_64_bits_is_written_as_text(tmp_path: Path) -> None:
    ids = [10**37, 2**64, -(2**63) - 1, 2**64 - 1]
    columns = {
        "id": pl.Series(map(Decimal, ids), dtype=pl.Decimal(38, 0)),
        "wide": pl.Series(ids, dtype=pl.Int128),
    }
    table = pl.DataFrame({"task": ["ann"] * len(ids), "at": range(len(ids)), **columns})
    table.write_parquet(tmp_path / "table.parquet")
    problem = replace(PROBLEMS[0], features=Features((Category("wide"),)))
    log = FileLog(
        tmp_path / "table.parquet", TableColumns(task=("task",), time="at", id="id"), problem.features
    )
    decoded, letters = decode(log.poll(9), problem), MemoryOutput()
    expected = [*map(str, ids[:3]), ids[3]]
    assert [*map(orjson.loads, values_text(ids_of(decoded.records)))] == expected
    DeadLetterLines(letters, log.origin).append([Rejected(record, "", "") for record in decoded.records])
    said = [orjson.loads(line)["record"] for line in letters.lines]
    assert [(one["id"], one["fields"]["wide"]) for one in said] == [*zip(expected, expected, strict=True)]


@given(npst.arrays(np.float64, st.integers(0, 9), elements=floats))
def test_numbers_of_a_column_are_written_as_each_alone(values: Any) -> None:
    assert [*numbers_text(values)] == [orjson.dumps(value) for value in values.tolist()]
    rows = np.stack([values, values[::-1]], axis=1)
    assert [*numbers_text(rows)] == [orjson.dumps(row)[1:-1] for row in rows.tolist()]


@given(npst.arrays(np.float64, st.integers(0, 40), elements=floats))
def test_a_number_is_rounded_alike_alone_and_in_a_column(values: Any) -> None:
    expected = np.array([written(value) for value in values.tolist()], np.float64)
    assert rounded(values).tobytes() == expected.tobytes()


features = st.floats(width=32, allow_infinity=False)


@st.composite
def learned(draw: st.DrawFn) -> LearnedLabel:
    """Any label that could be learned from, three features wide."""

    def rows(count: int, *shape: int) -> Any:
        return draw(
            npst.arrays(np.float32, (count, *shape), elements=features if shape else st.integers(0, 3))
        )

    losses = draw(npst.arrays(np.float64, 5, elements=st.floats(0, 1e3)) | st.just(np.full(5, np.nan)))
    source = SourcePosition(*draw(st.tuples(whole, st.integers(0, 99), whole)))
    labels, episode = draw(st.integers(1, 2**62)), None
    if draw(st.booleans()):
        support, query = draw(st.integers(1, 3)), draw(st.integers(1, 3))
        episode = Episode(
            -1, labels, -1, rows(support, 3), rows(support), rows(support), rows(query, 3), rows(query)
        )
    return LearnedLabel(
        draw(texts), source, labels, rows(1, 3)[0], float(draw(st.integers(0, 3))), losses, episode
    )


def line_of(label: LearnedLabel) -> bytes:
    """One label as JSON."""
    incarnation, partition, offset = label.source
    said: dict[str, Any] = {
        "task": label.task, "labels": label.labels, "incarnation": incarnation_text(incarnation),
        "partition": partition, "offset": offset, "x": label.x, "y": label.y,
        "losses": None if np.isnan(label.losses[0]) else label.losses.tolist(),
    }  # fmt: skip
    if (ended := label.episode) is not None:
        said["support"] = {"x": ended.support_x, "y": ended.support_y, "weight": ended.support_weight}
        said["query"] = {"x": ended.query_x, "y": ended.query_y}
    return orjson.dumps(said, option=orjson.OPT_SERIALIZE_NUMPY)


def parts(label: LearnedLabel) -> list[Any]:
    """Everything that a label holds, comparable bit for bit but for what a NaN carries."""
    held = [*label[:-1], *(vars(label.episode).values() if label.episode else ())]
    return [
        (part.dtype, part.shape, np.where(np.isnan(part), np.nan, part).astype(part.dtype).tobytes())
        if isinstance(part, np.ndarray)
        else part
        for part in held
    ]


@given(st.lists(learned(), min_size=1, max_size=4))
def test_lines_of_labels_are_the_same_bytes_as_of_each_alone(labels: list[LearnedLabel]) -> None:
    assert [*lines_of(columns_of_labels(labels))] == [line_of(label) for label in labels]


@given(learned())
def test_a_label_is_read_as_it_was_written(label: LearnedLabel) -> None:
    [line] = lines_of(columns_of_labels([label]))
    assert parts(read_learned(line)) == parts(label)

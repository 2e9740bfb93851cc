"""What a run is judged by: every line counted once, and baselines that come back from their file as they were."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.targets import Classification, Regression
from engine.types import PREDICTORS
from streams.errors import InputError
from streams.events.record import incarnation_text
from streams.logs.memory import MemoryOutput
from streams.logs.output import OutputFile
from streams.pages.run.evaluation import (
    Extra,
    Met,
    outcomes_met,
    read_extras,
    scores_of,
    write_extras,
)
from streams.pages.run.lines import lines_once


def test_a_line_is_a_repeat_only_in_its_own_partition(tmp_path: Path) -> None:
    log = OutputFile(tmp_path / "scores.jsonl")
    said = [(0, 5), (1, 3), (0, 6), (0, 5), (0, 6), (1, 3), (1, 4), (0, 7)]
    log.append([orjson.dumps({"partition": partition, "offset": offset}) for partition, offset in said])
    lines = [line for batch in lines_once(log) for line in batch.select("partition", "offset").rows()]
    log.close()
    assert lines == [(0, 5), (1, 3), (0, 6), (1, 4), (0, 7)]


def test_a_line_of_a_topic_that_was_made_anew_is_no_repeat(tmp_path: Path) -> None:
    log = OutputFile(tmp_path / "scores.jsonl")
    said = [(7, 0), (7, 1), (8, 0), (8, 1), (8, 1)]
    log.append(
        [orjson.dumps({"incarnation": incarnation_text(at), "partition": 0, "offset": n}) for at, n in said]
    )
    lines = [line for batch in lines_once(log) for line in batch.select("incarnation", "offset").rows()]
    log.close()
    assert lines == [(incarnation_text(at), n) for at, n in said[:4]]


@pytest.mark.parametrize(
    "damaged", [b'{"offset": 1, "task": "\xff"}', b'{"offset": 1, "ta', b"[1]", b'{"offset": 1}']
)
def test_a_damaged_line_is_named_with_the_way_out(tmp_path: Path, damaged: bytes) -> None:
    log = OutputFile(tmp_path / "scores.jsonl")
    log.append([b'{"offset": 0, "task": "erased"}', b'{"offset": 0, "task": "a"}', damaged])
    log.erase(lambda line: b"erased" in line)
    with pytest.raises(
        InputError, match=r"scores.jsonl, line 3 is damaged .* delete the line, or move the file"
    ):
        list(lines_once(log, {"task": pl.String}))
    log.close()


TARGETS: list[Classification | Regression] = [
    Classification(("no", "yes", "maybe")), Classification((0, 1)), Classification((False, True)),
    Classification(("1", 1, 2.5)), Classification((0.5, 1.5)), Regression(-10.0, 10.0),
]  # fmt: skip


@st.composite
def said(draw: st.DrawFn) -> tuple[Classification | Regression, list[dict[str, Any]]]:
    """Lines of a run, some twice, of several incarnations and versions; some made before a class was named."""
    target = draw(st.sampled_from(TARGETS))
    labels = st.sampled_from(target.classes) if isinstance(target, Classification) else st.floats(-10, 10)
    widths = st.integers(2, len(target.classes)) if isinstance(target, Classification) else st.just(1)
    share, loss = st.floats(0, 1).map(lambda value: round(value, 6)), st.none() | st.floats(0, 9)
    lines = []
    for _ in range(draw(st.integers(0, 9))):
        line: dict[str, Any] = {
            "task": draw(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4)),
            "id": draw(st.integers(0, 9) | st.sampled_from("ab")), "offset": draw(st.integers(0, 5)),
            "time": draw(st.floats(-1e9, 1e9) | st.integers(0, 9)), "label": draw(labels),
            "outcome": draw(st.sampled_from(["scored", "scored", "late", "orphan"])),
        }  # fmt: skip
        if draw(st.booleans()):
            line |= {
                "incarnation": incarnation_text(draw(st.integers(1, 2))),
                "partition": draw(st.integers(0, 1)),
            }
        if line["outcome"] == "scored":
            width = draw(widths)
            line |= {name: draw(st.lists(share, min_size=width, max_size=width)) for name in PREDICTORS}
            line |= {"seen": draw(st.integers(0, 99)), "loss": {name: draw(loss) for name in PREDICTORS}}
        if draw(st.integers(0, 3)) == 0:
            line["expired"] = draw(st.integers(1, 3))
        lines.append(line)
    return target, lines


def written(lines: Sequence[dict[str, Any]]) -> MemoryOutput:
    """An output of lines."""
    log = MemoryOutput()
    log.append([orjson.dumps(line) for line in lines])
    return log


def without_repeats(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of each source whose offset is above all before."""
    last: dict[Any, int] = {}
    kept = []
    for line in lines:
        source = line.get("incarnation"), line.get("partition")
        if line["offset"] > last.get(source, -1):
            last[source] = line["offset"]
            kept.append(line)
    return kept


@given(said(), st.sampled_from([-np.inf, 3.0]))
def test_scores_are_those_of_each_line(
    said: tuple[Classification | Regression, list[dict[str, Any]]], since_s: float
) -> None:
    target, lines = said
    scored = [x for x in without_repeats(lines) if x["outcome"] == "scored" and x["time"] >= since_s]
    parts = list(scores_of(written(lines), target, since_s))
    if not scored:
        assert not parts
        return
    [found] = parts
    assert (found.task, found.offset.tolist()) == tuple(
        [x[name] for x in scored] for name in ("task", "offset")
    )
    labels = [x["label"] for x in scored]
    if isinstance(target, Classification):
        labels = [[*map(kind_and_value, target.classes)].index(kind_and_value(label)) for label in labels]
    assert found.labels.y.tolist() == np.array(labels, np.float32).tolist()
    assert (found.labels.seen.tolist(), found.labels.time_s.tolist()) == (
        [x["seen"] for x in scored],
        [x["time"] for x in scored],
    )
    losses = np.array([[x["loss"][name] for name in PREDICTORS] for x in scored], np.float64)
    np.testing.assert_array_equal(found.labels.loss, losses)
    room = target.outputs
    predictions = [
        [x[name] + [getattr(target, "floor", 0)] * (room - len(x[name])) for name in PREDICTORS]
        for x in scored
    ]
    assert found.labels.prediction.tobytes() == np.array(predictions, np.float32).tobytes()


def kind_and_value(label: Any) -> tuple[type, Any]:
    """What tells 1 from True and from "1"."""
    return type(label), label


@given(said(), said())
def test_outcomes_are_those_of_each_line(
    predictions: tuple[Any, list[dict[str, Any]]], scores: tuple[Any, list[dict[str, Any]]]
) -> None:
    expected: dict[str, Met] = {}
    for line in (line for part in (predictions[1], scores[1]) for line in without_repeats(part)):
        for outcome, events in ((line["outcome"], 1), ("expired", line.get("expired", 0))):
            if events:
                known = expected.get(outcome, Met(0, line))
                expected[outcome] = known._replace(events=known.events + events)
    assert outcomes_met(written(predictions[1]), written(scores[1])) == expected


@given(said().filter(lambda case: any(line["outcome"] == "scored" for line in case[1])), st.data())
def test_a_line_with_a_label_that_is_no_class_is_named(
    said: tuple[Classification | Regression, list[dict[str, Any]]], data: st.DataObject
) -> None:
    target, lines = said
    n = data.draw(st.sampled_from([n for n, line in enumerate(lines) if line["outcome"] == "scored"]))
    lines[n]["label"] = data.draw(st.sampled_from(["on", 7, 7.5]))
    if isinstance(target, Regression) and lines[n]["label"] != "on":
        return
    with pytest.raises(InputError, match=f"memory, line {n + 1} is damaged"):
        list(scores_of(written(lines), target))


@given(said().filter(lambda case: any(line["outcome"] == "scored" for line in case[1])), st.data())
def test_whatever_becomes_of_a_line_it_is_read_or_named(
    said: tuple[Classification | Regression, list[dict[str, Any]]], data: st.DataObject
) -> None:
    target, lines = said
    raw = [orjson.dumps(line) for line in lines]
    n = data.draw(st.integers(0, len(raw) - 1))
    damaged = bytearray(raw[n])
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    raw[n] = bytes(damaged[: data.draw(st.integers(1, len(damaged)))]).replace(b"\n", b" ")
    log = MemoryOutput()
    log.append(raw)
    for read in (lambda: list(scores_of(log, target)), lambda: outcomes_met(log, log)):
        try:
            read()
        except InputError as error:
            assert f"memory, line {n + 1} is damaged" in str(error)


def test_damaged_baselines_are_named(tmp_path: Path) -> None:
    (tmp_path / "extras.npz").write_bytes(b"PK\x03\x04cut")
    with pytest.raises(InputError, match=r"extras\.npz is damaged"):
        read_extras(tmp_path / "extras.npz")


def test_baselines_come_back_as_they_were(tmp_path: Path) -> None:
    def extra(names: tuple[str, ...], labels: int) -> Extra:
        rng = np.random.default_rng(labels)
        prediction = rng.random((labels, len(names), 2), np.float32)
        return Extra(names, np.arange(labels), prediction, rng.random((labels, len(names))))

    written = (extra(("pooled", "pooled_finetuned"), 7), extra(("river",), 5))
    write_extras(tmp_path / "extras.npz", written)
    read = read_extras(tmp_path / "extras.npz")
    assert [one.names for one in read] == [one.names for one in written]
    for one, other in zip(read, written, strict=True):
        assert one.offset.tolist() == other.offset.tolist()
        assert (one.prediction == other.prediction).all()
        assert (one.loss == other.loss).all()

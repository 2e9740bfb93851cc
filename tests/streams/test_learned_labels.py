"""A line of the `episodes` output says all that a label taught, and is read back as it was folded."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from threading import Thread
from typing import Any, NamedTuple

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.stream.events import EventBatch
from engine.stream.in_progress import Folded
from engine.targets import Regression
from engine.types import SERVED, Outcome
from streams.events.label_lines import columns_of_labels, lines_of
from streams.events.learned_labels import LabelReader, LearnedLabel, read_learned
from streams.events.record import SourcePosition
from streams.logs.memory import MemoryOutput
from streams.program import label_log
from streams.program.embedded import steps
from streams.program.label_log import LabelLog
from streams.program.outcome_lines import DIGITS
from streams.program.outputs import Outputs, kept
from tests.faults.model import GRID, SPEC, World, bits, label, lines_of_episodes, observation, stream
from tests.varied import varied


class Fold(NamedTuple):
    events: EventBatch
    tasks: Sequence[str]
    folded: Folded


class Watched(Outputs):
    """Outputs that keep what they were given."""

    folds: list[Fold]

    def produce(self, events: Any, records: Any, tasks: Any, folded: Any) -> None:
        super().produce(events, records, tasks, folded)
        self.folds.append(Fold(events, tuple(tasks), folded))


RATE = 0.7
READER, WIDTH = LabelReader(SPEC), SPEC.problem.width


def read(line: bytes) -> LearnedLabel | str:
    """What a line is taken for."""
    [one] = READER.read([line])
    return one


@pytest.fixture(scope="module")
def folded() -> tuple[list[Fold], list[LearnedLabel]]:
    """What was folded of a log, and the lines that came of it; some labels come late, with features of their own."""
    records = stream(9, 90)
    alone = [
        label(f"task {n % 3}", f"alone {n}", 180.0 + n, "xy"[n % 2], {"a": 0.5, "b": 1.0}) for n in range(9)
    ]
    world = World([*records, *alone, observation("task 0", "last", 200.0)])
    program = world.program(GRID)
    said = program.worker.outputs
    watched = Watched(said.logs, said.dead_letters, said.problem, RATE)
    object.__setattr__(watched, "folds", [])
    for _ in steps(replace(program, worker=replace(program.worker, outputs=watched))):
        pass
    return watched.folds, [read_learned(line) for line in world.outputs["episodes"].lines]


def learned(folds: Sequence[Fold]) -> list[tuple[Fold, int]]:
    """Every label that was learned from: the fold, and its place there."""
    return [(fold, int(n)) for fold in folds for n in np.flatnonzero(fold.folded.outcomes.learned)]


def test_there_is_one_line_for_each_label_that_was_learned_from(
    folded: tuple[list[Fold], list[LearnedLabel]],
) -> None:
    folds, lines = folded
    expected = [
        (fold.tasks[fold.events.row[n]], (1, fold.events.partition[n], fold.events.offset[n]))
        for fold, n in learned(folds)
    ]
    assert [(line.task, line.source) for line in lines] == expected
    assert len({(line.task, line.labels) for line in lines}) == len(lines)


def test_features_label_and_count_are_those_that_were_learned_from_bit_for_bit(
    folded: tuple[list[Fold], list[LearnedLabel]],
) -> None:
    folds, lines = folded
    for line, (fold, n) in zip(lines, learned(folds), strict=True):
        out = fold.folded.outcomes
        assert line.x.tobytes() == out.learned_x[n].tobytes()
        assert (line.y, line.labels) == (fold.events.y[n], out.learned[n])


def test_losses_are_those_of_the_experts_and_of_their_shared_mixture_and_of_no_label_that_was_not_scored(
    folded: tuple[list[Fold], list[LearnedLabel]],
) -> None:
    folds, lines = folded
    unscored = 0
    for line, (fold, n) in zip(lines, learned(folds), strict=True):
        out = fold.folded.outcomes
        if out.code[n] == Outcome.SCORED:
            expected = [*out.loss[n, :SERVED], out.shared_loss[n]]
            np.testing.assert_allclose(line.losses, expected, atol=10.0**-DIGITS)
        else:
            unscored += 1
            assert np.isnan(line.losses).all()
    assert 0 < unscored < len(lines)


def test_where_a_task_adapted_its_episode_is_there_as_it_was_if_it_was_drawn(
    folded: tuple[list[Fold], list[LearnedLabel]],
) -> None:
    folds, lines = folded
    found = {(line.task, line.labels): line.episode for line in lines if line.episode is not None}
    ended = {
        (fold.tasks[one.row], one.labels): one
        for fold in folds
        for one in fold.folded.episodes
        if len(one.support_y) and fold.folded.outcomes.learned[one.event]  # no correction, which adapts too
    }
    assert found.keys() == {key for key in ended if kept(*key, RATE)}
    assert found
    assert len(found) < len(ended)
    for key, episode in found.items():
        for name in ("support_x", "support_y", "support_weight", "query_x", "query_y"):
            assert getattr(episode, name).tobytes() == getattr(ended[key], name).tobytes(), name


# Lines that this process wrote


def test_theta_is_the_same_bits_whether_labels_are_kept_or_read_from_their_lines() -> None:
    left = []
    for is_kept in (True, False):
        world = World(stream(5, 120))
        program = world.program(7)
        outputs = program.worker.outputs if is_kept else replace(program.worker.outputs, logs=world.outputs)
        for _ in steps(replace(program, worker=replace(program.worker, outputs=outputs))):
            pass
        left.append(world.left())
    assert len(left[0].versions) > 5
    assert not left[0].differs(left[1])


def test_labels_of_lines_that_this_process_wrote_are_given_once_and_not_parsed(taught: list[bytes]) -> None:
    log, lines = LabelLog(MemoryOutput(), READER), lines_of(columns_of_labels([*map(read_learned, taught)]))
    log.append(lines)
    assert log.read(0) == (lines.labels, len(taught))
    again, after = log.read(0)
    assert [*lines_of(columns_of_labels([one for one in again if isinstance(one, LearnedLabel)]))] == taught
    assert after == len(taught)
    assert log.read(after) == ([], after)


def test_of_lines_that_nobody_reads_those_written_last_are_kept(
    monkeypatch: pytest.MonkeyPatch, taught: list[bytes]
) -> None:
    monkeypatch.setattr(label_log, "MOST_KEPT", 3)
    log, each = LabelLog(MemoryOutput(), READER), [columns_of_labels([read_learned(one)]) for one in taught]
    for one in each:
        log.append(lines_of(one))
    is_kept = [log.read(position)[0] is one for position, one in enumerate(each)]
    assert is_kept == [False] * (len(taught) - 3) + [True] * 3


def test_lines_of_another_process_are_read_among_those_of_this_one(taught: list[bytes]) -> None:
    log = LabelLog(MemoryOutput(), READER)
    kept = lines_of(columns_of_labels([read_learned(taught[0])]))
    for lines in (kept, taught[1:], kept):
        log.append(lines)
    found: list[LearnedLabel | str] = []
    labels, position = log.read(0)
    while labels:
        found += labels
        labels, position = log.read(position)
    assert [one.source for one in found if isinstance(one, LearnedLabel)] == [
        read_learned(one).source for one in (*taught, taught[0])
    ]


def test_lines_that_are_appended_while_others_are_looked_for_are_not_parsed(taught: list[bytes]) -> None:
    class Beside(MemoryOutput):
        def read(self, position: int, max_lines: int) -> tuple[list[bytes], int]:
            appending.start()
            appending.join(0.05)
            return super().read(position, max_lines)

    log, lines = LabelLog(Beside(), READER), lines_of(columns_of_labels([*map(read_learned, taught)]))
    appending = Thread(target=log.append, args=(lines,))
    assert log.read(0) == ([], 0)
    appending.join()
    assert log.read(0) == (lines.labels, len(taught))


def test_a_label_that_cannot_be_is_refused_whether_it_is_kept_or_read_from_its_line(
    taught: list[bytes],
) -> None:
    log, one = LabelLog(MemoryOutput(), READER), read_learned(taught[0])
    lines = lines_of(columns_of_labels([one._replace(losses=one.losses + 1e30), one]))
    log.append(lines)
    kept, read = log.read(0)[0], log.read(0)[0]
    assert kept[0] == read[0] == "is not of this stream spec, whose losses are others"
    assert [isinstance(found[1], LearnedLabel) for found in (kept, read)] == [True, True]


def test_what_a_narrow_range_far_from_zero_makes_a_loss_in_single_precision_is_a_loss() -> None:
    target = Regression(1e8, 1e8 + 5)
    reader = LabelReader(varied(SPEC, target=target))
    loss = float(np.float32(target.high) - np.float32(target.low)) ** 2
    x = np.zeros(reader.spec.problem.width, np.float32)
    label = LearnedLabel("ann", SourcePosition(1, 0, 0), 1, x, 1e8, np.full(5, loss), None)
    assert [*reader.sound([label, label._replace(losses=np.full(5, 2 * loss))])] == [
        label, "is not of this stream spec, whose losses are others"
    ]  # fmt: skip


def test_labels_that_were_read_from_their_lines_are_kept_no_longer(taught: list[bytes]) -> None:
    output = MemoryOutput()
    output.append(taught[:1])
    log = LabelLog(output, READER)
    for one in taught[1:]:
        log.append(lines_of(columns_of_labels([read_learned(one)])))
    position = log.read(0)[1]
    log.read(position)
    assert not log._kept


# Lines that are none


@pytest.fixture(scope="module")
def taught() -> list[bytes]:
    """Lines of a stream spec with every encoder, history and room for a class; the last ends an episode."""
    return sorted(lines_of_episodes(), key=lambda line: b"support" in line)


def changed(line: bytes, member: str, value: Any) -> bytes:
    """A line with another value for a member, named as `support.y`; `...` deletes it."""
    said = orjson.loads(line)
    *path, last = member.split(".")
    inside = said[path[0]] if path else said
    if value is ...:
        del inside[last]
    else:
        inside[last] = value
    return json.dumps(said).encode()


WRONG: list[tuple[str, Any]] = [
    ("y", []), ("y", -1), ("y", 2), ("y", 0.5), ("y", 1e300), ("y", "x"), ("y", True), ("y", math.nan), ("y", ...),
    ("task", 5), ("task", ""), ("task", None), ("task", ["ann"]), ("task", ...),
    ("labels", 0), ("labels", -1), ("labels", 1.5), ("labels", "3"), ("labels", True), ("labels", 2**70),
    ("offset", -1), ("offset", "0"), ("offset", None), ("offset", 2**64), ("offset", []),
    ("partition", -1), ("partition", {}), ("partition", 0.0),
    ("incarnation", 5), ("incarnation", "xyz"), ("incarnation", "-1"), ("incarnation", "f" * 40),
    ("x", []), ("x", {}), ("x", [[1]]), ("x", [1e39] * WIDTH), ("x", [float("inf")] * WIDTH),
    ("x", [True] * WIDTH), ("x", [None] * WIDTH), ("x", [-5.0] * WIDTH),
    ("losses", []), ("losses", [1, 2, 3]), ("losses", [1e30] * 5), ("losses", [-1.0] * 5), ("losses", ["a"] * 5),
    ("losses", [None] * 5), ("losses", 0), ("losses", ...),
    ("support", 5), ("support", []), ("support", {}), ("query", ...), ("query", []),
    ("support.y", []), ("support.y", [7]), ("support.y", ...), ("support.x", []), ("support.x", [[1, 2]]),
    ("support.x", 3), ("support.weight", []), ("support.weight", [-1.0]), ("support.weight", [1e30]),
    ("query.y", []), ("query.y", [-1.0]), ("query.y", [float("nan")]), ("query.x", [[]]), ("query.x", [None]),
]  # fmt: skip


@pytest.mark.parametrize(("member", "value"), WRONG)
def test_a_line_with_a_member_that_is_wrong_is_none(taught: list[bytes], member: str, value: Any) -> None:
    why = read(changed(taught[-1], member, value))
    assert isinstance(why, str)
    assert re.match(r"(cannot be read \(\w+\)$|is not of this stream spec, (whose|which) )", why)


def test_every_line_that_a_worker_wrote_is_one(taught: list[bytes]) -> None:
    assert all(isinstance(read(line), LearnedLabel) for line in taught)
    assert isinstance(read(changed(taught[-1], "more", 5)), LearnedLabel)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
numbers = st.sampled_from([0, 1, -1, 2, 0.5, 1e30, -1e300, 2**63, 2**64, math.nan, math.inf, None, True, "1"])


@st.composite
def mutated(draw: st.DrawFn, said: Any) -> Any:
    """A value with a few of its parts replaced, dropped or doubled."""
    if isinstance(said, dict) and said and draw(st.integers(0, 9)):
        name = draw(st.sampled_from(sorted(said)))
        return said | {name: draw(mutated(said[name]))}
    if isinstance(said, list) and said and draw(st.integers(0, 9)):
        place = draw(st.integers(0, len(said) - 1))
        part = draw(st.sampled_from(["drop", "double", "change"]))
        middle = {"drop": [], "double": [said[place]] * 2}.get(part) if part != "change" else None
        return said[:place] + ([draw(mutated(said[place]))] if middle is None else middle) + said[place + 1 :]
    return draw(numbers | anything)


@settings(max_examples=300)
@given(st.data())
def test_of_any_line_a_label_is_read_that_can_be_trained_on_or_none(
    taught: list[bytes], data: st.DataObject
) -> None:
    said = orjson.loads(data.draw(st.sampled_from(taught[-3:])))
    for _ in range(data.draw(st.integers(1, 2))):
        said = data.draw(mutated(said))
    check_sound(read(json.dumps(said).encode(errors="surrogatepass")))


@settings(max_examples=200)
@given(st.data())
def test_of_a_line_with_any_bytes_changed_too(taught: list[bytes], data: st.DataObject) -> None:
    line = bytearray(data.draw(st.sampled_from(taught[-3:])))
    for _ in range(data.draw(st.integers(1, 4))):
        line[data.draw(st.integers(0, len(line) - 1))] = data.draw(st.integers(0, 255))
    check_sound(read(bytes(line[: data.draw(st.integers(0, len(line)))])))
    check_sound(read(bytes(line)))


def check_sound(one: LearnedLabel | str) -> None:
    """What the learner relies on."""
    if isinstance(one, str):
        return
    assert one.x.shape == (WIDTH,)
    assert one.y in (0.0, 1.0)
    assert one.labels > 0
    assert min(one.source) >= 0
    if one.episode is not None:
        support, query = one.episode.support_y, one.episode.query_y
        assert one.episode.support_x.shape == (len(support), WIDTH)
        assert one.episode.query_x.shape == (len(query), WIDTH)
        assert {*support.tolist(), *query.tolist()} <= {0.0, 1.0}
        assert np.isfinite(one.episode.support_weight).all()


def test_rounds_pass_over_and_tell_what_is_no_label(taught: list[bytes]) -> None:
    """As they come from a file that somebody damaged."""
    said: list[str] = []
    versions = []
    for lines in (taught, [b"", *taught[:3], changed(taught[-1], "y", []), *taught[3:], b"[5"]):
        world = World([])
        rounds = replace(world.program(5).rounds, say=said.append)
        rounds.episodes.append(sorted(lines, key=_offset))
        rounds.run(60)
        versions.append(bits(world.meta.versions[0].params))
    assert versions[0] == versions[1]
    assert sorted(set(said)) == [
        "a label in the output `episodes` cannot be read (JSONDecodeError); passed over",
        "a label in the output `episodes` cannot be read (TypeError); passed over",
    ]


def _offset(line: bytes) -> int:
    one = read(line)
    return one.source.offset if isinstance(one, LearnedLabel) else 0

"""What a producer that is not idempotent does to the events: some come twice, some before those they follow.

What it sends again is one more record, at an offset of its own: no broker is needed to see what becomes of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.types import Outcome
from streams.events.record import Record
from tests.faults.model import label
from tests.streams.test_set_aside import Scene, event

TASKS = ("ann", "bob")
MOVED = ("revision", "checksum", "position", "counts")
"""What tells of offsets, writes and repeats themselves."""
REPEATS = [Outcome.REPEATED_OBSERVATION, Outcome.REPEATED_LABEL]


def known(task: str, id: str, time: float, value: str = "x") -> Record:
    return label(task, id, time, value)._replace(key=task.encode())


def folded(records: Sequence[Record], size: int = 5) -> Scene:
    scene = Scene(partitions=1)
    for start in range(0, len(records), size):
        scene.take(records[start : start + size])
    return scene


def row_of(scene: Scene, task: str) -> Any:
    return scene.worker.store.load(scene.worker.engine.layout, [task]).rows[0]


def outcomes(scene: Scene, task: str) -> dict[str, int]:
    counts = row_of(scene, task)["counts"]
    return {outcome.name: int(counts[outcome]) for outcome in Outcome if counts[outcome]}


def lines(scene: Scene, output: str) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in scene.world.outputs[output].lines]


def said_of(scene: Scene, output: str) -> list[dict[str, Any]]:
    """What an output says, but for the offsets and for events that came again, which are said to be repeats."""
    said = [line for line in lines(scene, output) if not str(line.get("outcome", "")).startswith("repeated")]
    return [{name: value for name, value in line.items() if name != "offset"} for line in said]


steps = st.lists(st.tuples(st.sampled_from(TASKS), st.booleans()), max_size=16)


@settings(max_examples=40)
@given(steps, st.lists(st.integers(1, 3), max_size=8), st.integers(1, 6))
def test_whatever_a_producer_sends_again_changes_no_row_and_no_prediction(
    drawn: list[tuple[str, bool]], portions: list[Any], size: int
) -> None:
    once = list[Record]()
    for n, (task, labelled) in enumerate(drawn):
        once.append(event(task, f"e{n}", time=float(n)))
        once += [known(task, f"e{n}", n + 0.5, "xy"[n % 2])] * labelled
    twice, rest = list[Record](), list(once)
    for portion in portions:  # each was sent, not acknowledged, and sent again
        twice += 2 * rest[:portion]
        del rest[:portion]
    expected, seen = folded(once, size), folded([*twice, *rest], size)
    assert seen.rows().keys() == expected.rows().keys()
    for task in {task for task, _ in drawn}:
        row, wanted = row_of(seen, task), row_of(expected, task)
        differing = [name for name in row.dtype.names if row[name].tobytes() != wanted[name].tobytes()]
        assert set(differing) <= set(MOVED), differing
        assert np.array_equal(np.delete(row["counts"], REPEATS), np.delete(wanted["counts"], REPEATS))
    for output in ("predictions", "scores", "drifts"):
        assert said_of(seen, output) == said_of(expected, output)


def test_what_comes_again_is_said_to_be_a_repeat() -> None:
    scene = folded([event("ann", "1"), event("ann", "1"), known("ann", "1", 2.0), known("ann", "1", 2.0)])
    said = [
        (line["offset"], line["outcome"])
        for output in ("predictions", "scores")
        for line in lines(scene, output)
    ]
    assert said == [(0, "predicted"), (1, "repeated_observation"), (2, "scored"), (3, "repeated_label")]


def test_a_label_that_overtook_its_observation_scores_nothing_and_sent_again_it_does() -> None:
    overtaken = [known("ann", "1", 2.0), event("ann", "1")]
    scene = folded(overtaken)
    assert outcomes(scene, "ann") == {"ORPHAN": 1, "PREDICTED": 1}
    assert [line["outcome"] for line in lines(scene, "scores")] == ["orphan"]
    scene = folded([*overtaken, known("ann", "1", 2.0)])
    assert outcomes(scene, "ann") == {"ORPHAN": 1, "PREDICTED": 1, "SCORED": 1}


def test_observations_that_were_swapped_are_both_served_and_scored_and_no_clock_goes_back() -> None:
    later, earlier = event("ann", "2", time=20.0), event("ann", "1", time=10.0)
    scene = folded([later, earlier, known("ann", "1", 11.0), known("ann", "2", 21.0)])
    in_order = folded([earlier, known("ann", "1", 11.0), later, known("ann", "2", 21.0)])
    assert scene.predicted() == {("ann", "1"), ("ann", "2")}
    assert outcomes(scene, "ann") == outcomes(in_order, "ann") == {"PREDICTED": 2, "SCORED": 2}
    assert scene.letters() == []
    assert row_of(scene, "ann")["clock_s"] == row_of(in_order, "ann")["clock_s"] == 21.0

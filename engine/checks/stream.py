"""What a learner and a stream spec keep together when events are folded."""

from __future__ import annotations

import numpy as np

from engine.checks.made_up import labels_of, stored_rows, theta_of
from engine.checks.promises import require
from engine.learners.base import Learner
from engine.problem import Problem
from engine.stream.events import EventBatch
from engine.stream.fold import Engine
from engine.stream.spec import StreamSpec
from engine.stream.table import TaskTable
from engine.types import Kind, Meta

EVENTS = 96
"""Events of the checked stream."""


def event_stream(problem: Problem, start: int, stop: int) -> EventBatch:
    """Events start .. stop of one fixed stream of three tasks, six observations and then their six labels."""
    index = np.arange(start, stop)
    is_label = index // 6 % 2 == 1
    return EventBatch(
        row=index % 3,
        kind=np.where(is_label, int(Kind.LABEL), int(Kind.OBSERVATION)).astype(np.uint8),
        id=np.where(is_label, index - 6, index).astype(np.uint64),
        time_s=np.zeros(len(index)),
        x=stored_rows(problem.features, EVENTS, seed=0)[index],
        has_x=~is_label,
        y=labels_of(problem, EVENTS, seed=0)[index],
        topic=np.zeros(len(index), np.int64),
        offset=index,
        partition=np.zeros(len(index), np.int64),
        incarnation=np.ones(len(index), np.uint64),
    )


def rows_do_not_depend_on_how_the_stream_was_cut(learner: Learner, spec: StreamSpec) -> None:
    """One batch, or two: the rows have the same bits."""
    engine, problem = Engine(spec, learner), spec.problem
    meta, empty = Meta(1, theta_of(engine.learner)), TaskTable.empty(engine.layout, "abc")
    once = engine.fold(empty, event_stream(problem, 0, EVENTS), meta).states
    twice = engine.fold(
        engine.fold(empty, event_stream(problem, 0, 41), meta).states,
        event_stream(problem, 41, EVENTS),
        meta,
    ).states
    require(
        once.rows.tobytes() == twice.rows.tobytes(),
        "the same events, cut in two, gave other rows",
        "let neither the learner nor the detector depend on what stands beside a task in a batch",
    )


def wiped_fast_parameters_come_back(learner: Learner, spec: StreamSpec) -> None:
    """Fast parameters are a cache of the support set: recomputed, they have the same bits."""
    engine = Engine(spec, learner)
    meta, empty = Meta(1, theta_of(engine.learner)), TaskTable.empty(engine.layout, "abc")
    folded = engine.fold(empty, event_stream(spec.problem, 0, EVENTS), meta).states
    wiped = TaskTable(folded.layout, folded.ids, folded.rows.copy())
    wiped.rows["fast"], wiped.rows["fast_version"] = 0.0, 0
    x, restarted = stored_rows(spec.problem.features, 3, seed=1), Engine(spec, learner)
    expected = engine.predict(folded, x, meta, np.zeros(3))
    require(
        restarted.predict(wiped, x, meta, np.zeros(3)).adapted.tobytes() == expected.adapted.tobytes(),
        "fast parameters that were wiped and recomputed predict otherwise",
        "let `adapt` depend on theta and the support set alone",
    )


FOLD_CHECKS = (rows_do_not_depend_on_how_the_stream_was_cut, wiped_fast_parameters_come_back)

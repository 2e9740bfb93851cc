"""What a learner and a task spec keep together when events are folded."""

from __future__ import annotations

import numpy as np

from engine.checks.made_up import EVENTS, event_stream, stored_rows, theta_of
from engine.checks.promises import require
from engine.learners.base import Learner
from engine.stream.fold import Engine
from engine.stream.table import TaskTable
from engine.task_spec import TaskSpec
from engine.types import Meta


def rows_do_not_depend_on_how_the_stream_was_cut(learner: Learner, spec: TaskSpec) -> None:
    """One batch, or two: the rows have the same bits."""
    engine, whole = Engine(spec, learner), event_stream(spec, 0, EVENTS)
    meta, empty = Meta(1, theta_of(engine.learner)), TaskTable.empty(engine.layout, "abc")
    once = engine.fold(empty, whole, meta).states
    twice = engine.fold(
        engine.fold(empty, event_stream(spec, 0, 41), meta).states, event_stream(spec, 41, EVENTS), meta
    ).states
    require(
        once.rows.tobytes() == twice.rows.tobytes(),
        "the same events, cut in two, gave other rows",
        "let neither the learner nor the detector depend on what stands beside a task in a batch",
    )


def wiped_fast_parameters_come_back(learner: Learner, spec: TaskSpec) -> None:
    """Fast parameters are a cache of the support set: recomputed, they have the same bits."""
    engine = Engine(spec, learner)
    meta, empty = Meta(1, theta_of(engine.learner)), TaskTable.empty(engine.layout, "abc")
    folded = engine.fold(empty, event_stream(spec, 0, EVENTS), meta).states
    wiped = TaskTable(folded.layout, folded.ids, folded.rows.copy())
    wiped.rows["fast"], wiped.rows["fast_version"] = 0.0, 0
    x, restarted = stored_rows(spec.features, 3, seed=1), Engine(spec, learner)
    expected = engine.predict(folded, x, meta, np.zeros(3))
    require(
        restarted.predict(wiped, x, meta, np.zeros(3)).adapted.tobytes() == expected.adapted.tobytes(),
        "fast parameters that were wiped and recomputed predict otherwise",
        "let `adapt` depend on theta and the support set alone",
    )


FOLD_CHECKS = (rows_do_not_depend_on_how_the_stream_was_cut, wiped_fast_parameters_come_back)

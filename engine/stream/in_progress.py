"""One fold in progress: the rows that are being written, and how far each task has come."""

from __future__ import annotations

from functools import cached_property
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from engine.batches import BLOCK, blocks, bucket_of
from engine.learners.base import flatten
from engine.stream import answers, scan, scan_arrays, support_slots
from engine.stream.layout import Columns
from engine.stream.look_ahead import Foreseen, foreseen, look_ahead
from engine.stream.predictions import Asked
from engine.stream.prepared import Prepared
from engine.stream.rounding import remembered
from engine.stream.scan_arrays import Events
from engine.stream.sources import TakenUp
from engine.stream.support import (
    Support,
    episodes_of,
    examples_of,
    leave_all,
    padded,
    room_for,
    support_of,
    weighed,
)
from engine.stream.table import TaskTable
from engine.types import ADAPTED, Batch, Episode, Float32, Int64, Outcome, Outcomes

if TYPE_CHECKING:
    from engine.stream.fold import Engine


NONE = -1

NONE_AHEAD = np.empty(0, np.int64)
"""In place of which adaptations serve events, where none was found ahead."""

SHORTEST = 64
"""Events that are looked ahead at least, after an alarm."""


class Folded(NamedTuple):
    """The result of a fold."""

    states: TaskTable
    outcomes: Outcomes
    episodes: list[Episode]
    adaptations: int
    """Tasks adapted, recomputations for a new theta included."""
    not_finite: int
    """Adaptations and predictions that were not finite and were not used."""
    inner_loops: list[tuple[float, int]]
    """Of each run of the inner loop over a block: wall seconds, and tasks."""


class FoldInProgress:
    """One fold in progress: the rows being written, and how far each task has come."""

    def __init__(
        self, engine: Engine, states: TaskTable, events: Events, theta: Prepared, taken_up: TakenUp
    ) -> None:
        """Of events that are checked, and that part of them that is taken up."""
        self.engine, self.states, self.events, self.theta = engine, states, events, theta
        self.rows, self.rules = states.rows, engine.rules
        count, tasks = len(events.row), len(states)
        self.out = scan_arrays.blank_results(count, self.rules.outputs, events.x.shape[1])
        self.order, self.cursor, self.stop = taken_up[1:]
        if len(self.order) < count:
            repeated = np.flatnonzero(~taken_up.fresh)
            answers.answer_again(states.located, events, self.out, self.rules, repeated)
        # Where each task's events were looked ahead from, and up to where: those are predicted.
        self.begun, self.end = self.cursor.copy(), self.stop.copy()
        self.is_cut = False
        # `taken`: the adaptation found ahead that comes after those whose fast parameters the row has.
        self.reason, self.last, self.taken, self.follows = np.zeros((4, tasks), np.int64)
        self.follows.fill(NONE)
        self.work = scan_arrays.nothing_foreseen(tasks, self.rules.outputs)
        self.aheads: list[Foreseen] = []
        self.episodes: list[Episode] = []
        self.adaptations = 0
        self.not_finite = 0
        self.inner_loops: list[tuple[float, int]] = []

    @cached_property
    def c(self) -> Columns:
        """Views of the rows' columns."""
        return self.states.columns()

    def unfolded(self) -> Int64:
        """Tasks with an event to fold."""
        return (self.cursor < self.stop).nonzero()[0]

    def adapt_stale(self, tasks: Int64) -> None:
        """Adapt those of tasks with an event to fold whose fast parameters are of another theta."""
        self._adapt(tasks[self.rows["fast_version"][tasks] != self.theta.meta.version])

    def work_ahead(self) -> None:
        """Run every adaptation of the batch, and every prediction, as far as no alarm changes them."""
        if self.theta.meta.version == 0 or not len(self.order):
            return
        serves = NONE_AHEAD
        if len(several := (self.stop - self.cursor > 1).nonzero()[0]):
            serves = self._look_ahead(several)
        self._predict(self.order, serves, again=False)
        self.rules = self.engine.rules_written

    def _look_ahead(self, tasks: Int64) -> Int64:
        """Run every adaptation that tasks come to before `end`; returns which serves each event [N], or ROW."""
        self._leave_episodes(tasks)
        ahead = look_ahead(
            self.engine.layout, self.rows, self.events, self.out, self.rules, self.theta.version, tasks, self.order,
            self.cursor, self.end,
        )  # fmt: skip
        values = self._adapted_from(ahead.due, len(ahead.due.ends) - 1)
        self.work.number[tasks] = self.taken[tasks] = ahead.begin
        self.work.foreseen[tasks] = True
        self.follows[tasks] = len(self.aheads)
        self.aheads.append(foreseen(ahead, values, self.rows["fast"]))
        return ahead.serves

    def _look_ahead_again(self, tasks: Int64) -> None:
        """Look ahead from where tasks are: at most twice as far as they came since the last time, or to an alarm."""
        far = np.maximum(2 * (self.cursor - self.begun)[tasks], SHORTEST)
        self.begun[tasks] = self.cursor[tasks]
        self.end[tasks] = np.minimum(self.cursor[tasks] + far, self.stop[tasks])
        serves = self._look_ahead(tasks)
        self._predict(self.order[scan.runs(self.cursor[tasks], self.end[tasks])], serves, again=True)

    def _predict(self, index: Int64, serves: Int64, *, again: bool) -> None:
        """Predict what is observed of events `index`, by the adaptations found ahead that serve each, or the rows."""
        found = self.aheads[-1].values if self.aheads else self.theta.nothing_found
        asked = Asked(index, self.cursor, self.stop, serves, found, again)
        self.not_finite += self.theta.predictor.predict(
            self.states, self.events, self.rules, asked, self.out.prediction
        )

    def fold_round(self, active: Int64) -> None:
        """Fold each active task's events up to an adaptation that was not foreseen, then adapt those that are due."""
        if self.is_cut and len(ended := active[self.cursor[active] == self.end[active]]):
            self._look_ahead_again(ended)
        interrupted = scan.scan(
            self.states.located, self.events, self.out, self.rules, self.theta.version, self.work,
            active, self.order, self.cursor, self.end, self.reason, self.last,
        )  # fmt: skip
        if not interrupted and not self.aheads:
            return
        if interrupted:
            self._ask_detector(active[self.reason[active] == scan_arrays.ASK_DETECTOR])
        due = active[self.reason[active] != scan_arrays.NOT_DUE]
        if self.aheads:
            is_foreseen = self.work.foreseen[due] & (self.reason[due] == scan_arrays.SCHEDULED)
            self._take_ahead(due[is_foreseen])
            due = due[~is_foreseen]
        self._adapt_due(due)

    def _ask_detector(self, tasks: Int64) -> None:
        """Feed the last label's loss to a detector that does not run inside the scan."""
        if not len(tasks):
            return
        events = self.last[tasks]
        states = self.c.detector[tasks]
        fed = [
            answers.surprise(self.c, u, self.c.counts[u, Outcome.SCORED], loss, self.rules)
            for u, loss in zip(tasks.tolist(), self.out.loss[events, ADAPTED].tolist(), strict=True)
        ]
        alarms = self.engine.spec.detector.update(states, np.array(fed))
        self.c.detector[tasks] = states
        for u, n, alarm in zip(tasks.tolist(), events.tolist(), alarms.tolist(), strict=True):
            if alarm:
                self.out.alarm[n] = True
                support_slots.cut_to_recent(self.c, u, self.rules)
            scheduled = scan.due(self.c.seq[u], self.rules.every)
            self.reason[u] = (
                scan_arrays.ALARM if alarm else scan_arrays.SCHEDULED if scheduled else scan_arrays.NOT_DUE
            )

    def _adapt_due(self, tasks: Int64) -> None:
        """Leave an episode of each task that is due, then adapt it on its support set as of now."""
        count = len(tasks)
        if not count:
            return
        self.work.foreseen[tasks] = False
        self.out.adapted[self.last[tasks]] = True
        left = room_for(count, count, self.rows)
        leave_all(self.states.located, tasks, self.last, left)
        first, due = (
            weighed(sets, count, self.engine.spec.slots, self.rules.balanced)
            for sets in (left.first, left.due)
        )
        self.episodes += episodes_of(left, first, due, range(count))
        if self.theta.meta.version:
            self.end[tasks], self.is_cut = self.cursor[tasks], True
            self._keep(tasks, self._adapted_from(due, count))

    def _adapt(self, tasks: Int64) -> None:
        """Compute the fast parameters of tasks from theta and their support sets as of `adapted_through`."""
        if len(tasks) and self.theta.meta.version:
            support = None if self.theta.unmoved else support_of(self.states, tasks, self.rules.balanced)
            self._keep(tasks, self._adapted_from(support, len(tasks)))

    def _adapted_from(self, support: Support | None, tasks: int) -> Float32:
        """Fast parameters [T, F] for support sets as rows remember them; theta's for none."""
        return remembered(self._computed_from(support, tasks), self.engine.rounded_fast)

    def _computed_from(self, support: Support | None, tasks: int) -> Float32:
        """The same as computed: task by task, or in full blocks of a bucket."""
        if support is None or self.theta.unmoved:
            return np.repeat(self.theta.unadapted, tasks, axis=0)
        if self.theta.inner_loop is not None:
            began = perf_counter()
            values = self.theta.inner_loop.adapt(*examples_of(support))
            self.inner_loops.append((perf_counter() - began, tasks))
            return values
        values = np.empty((tasks, self.rows["fast"].shape[1]), np.float32)
        buckets = np.array([bucket_of(size) for size in np.diff(support.ends).tolist()])
        for bucket in np.unique(buckets):
            of_bucket = np.flatnonzero(buckets == bucket)
            for part in blocks(len(of_bucket), BLOCK):
                members = of_bucket[part]
                padding = padded(support, members, BLOCK)
                block = Batch(*(column.to(self.engine.device) for column in padding))
                began = perf_counter()
                fast = flatten(self.engine.learner.adapt(self.theta.meta.params, block))
                values[members] = fast.cpu().numpy()[: len(members)]
                self.inner_loops.append((perf_counter() - began, len(members)))
        return values

    def _take_ahead(self, due: Int64) -> None:
        """Write the fast parameters of the latest of the adaptations found ahead that tasks have come to.

        To that of tasks that are `due` the scan has not come by itself.
        """
        self.work.number[due] += 1
        self.out.adapted[self.last[due]] = True
        self.c.adapted_through[due] = self.c.seq[due]
        self.c.adapted_counts[due] = self.c.class_counts[due]
        come = (self.work.number > self.taken).nonzero()[0]
        for k in np.unique(self.follows[come]).tolist():
            tasks = come[self.follows[come] == k]
            before, number = self.taken[tasks], self.work.number[tasks]
            self.rows["fast"][tasks] = self.aheads[k].values[number - 1]
            self.rows["fast_version"][tasks] = self.theta.meta.version
            self.adaptations += int((number - before).sum())
            unsound = self.aheads[k].unsound
            self.not_finite += int((unsound[number] - unsound[before]).sum())
            self.taken[tasks] = number

    def _leave_episodes(self, tasks: Int64) -> None:
        """Leave the episodes of the adaptations found ahead that tasks have come to, of what each follows now."""
        for k in np.unique(self.follows[tasks]).tolist():
            if k != NONE:
                follow = np.zeros(len(self.states), np.bool_)
                follow[tasks] = self.follows[tasks] == k
                self.episodes += self.aheads[k].episodes(follow, self.taken)

    def _keep(self, tasks: Int64, values: Float32) -> None:
        """Write fast parameters [T, F] to the rows; what is not finite keeps the previous ones."""
        if not len(tasks):
            return
        finite = np.isfinite(values)
        if np.count_nonzero(finite) < finite.size:
            sound = finite.all(axis=1, keepdims=True)
            self.not_finite += int((~sound).sum())
            kept = self.rows["fast"][tasks]
            kept[self.rows["fast_version"][tasks] == 0] = self._adapted_from(None, 1)
            values = np.where(sound, values, kept)
        self.rows["fast"][tasks] = values
        self.rows["fast_version"][tasks] = self.theta.meta.version
        self.adaptations += len(tasks)

    def result(self) -> Folded:
        """The new rows, and what became of the events."""
        if self.aheads:
            self._leave_episodes(np.arange(len(self.states)))
        episodes = sorted(self.episodes, key=lambda episode: episode.event)
        outcomes = Outcomes(*self.out)
        return Folded(self.states, outcomes, episodes, self.adaptations, self.not_finite, self.inner_loops)

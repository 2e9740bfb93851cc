"""One fold in progress: the rows that are being written, and how far each task has come."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from engine.batches import BLOCK, blocks, bucket_of
from engine.learners.base import flatten
from engine.stream import answers, scan, scan_arrays, support_slots
from engine.stream.events import EventBatch
from engine.stream.look_ahead import Foreseen, foreseen, look_ahead
from engine.stream.predictions import write_predictions
from engine.stream.prepared import Prepared
from engine.stream.scan_arrays import OBSERVATION
from engine.stream.sources import not_folded_yet
from engine.stream.support import (
    ROW,
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
from engine.types import ADAPTED, THETA, Batch, EngineError, Episode, Float32, Int64, Outcome, Outcomes

if TYPE_CHECKING:
    from engine.stream.fold import Engine


NONE = -1

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

    def __init__(self, engine: Engine, states: TaskTable, events: EventBatch, theta: Prepared) -> None:
        self.engine, self.states, self.theta = engine, states, theta
        self.rules = engine.rules
        self.events = engine.requirements.checked(events, len(states))
        count, tasks = len(events), len(states)
        self.rows, self.c = states.rows, states.columns()
        self.out = scan_arrays.blank_results(count, self.rules.outputs, self.events.x.shape[1])
        fresh = not_folded_yet(self.states, self.events, engine.follows)
        self.order, (self.cursor, self.stop) = np.empty(count, np.int64), np.zeros((2, tasks), np.int64)
        if (folded := scan.by_task(self.events.row, fresh, self.order, self.cursor, self.stop)) < count:
            self.order = self.order[:folded]
            answers.answer_again(self.c, self.events, self.out, self.rules, np.flatnonzero(~fresh))
        self.reason, self.last = np.zeros((2, tasks), np.int64)
        # Where each task's events were looked ahead from, and up to where: those are predicted.
        self.begun, self.end = self.cursor.copy(), self.stop.copy()
        self.work = scan_arrays.nothing_foreseen(tasks, self.rules.outputs)
        self.aheads: list[Foreseen] = []
        self.follows = np.full(tasks, NONE)
        # The adaptation found ahead that comes after those whose fast parameters the row has.
        self.taken = np.zeros(tasks, np.int64)
        self.episodes: list[Episode] = []
        self.adaptations = 0
        self.not_finite = 0
        self.inner_loops: list[tuple[float, int]] = []

    def unfolded(self) -> Int64:
        """Tasks with an event to fold."""
        return (self.cursor < self.stop).nonzero()[0]

    def adapt_stale(self) -> None:
        """Adapt tasks with an event to fold whose fast parameters are of another theta."""
        tasks = self.unfolded()
        self._adapt(tasks[self.rows["fast_version"][tasks] != self.theta.meta.version])

    def work_ahead(self) -> None:
        """Run every adaptation of the batch, and every prediction, as far as no alarm changes them."""
        if self.theta.meta.version == 0:
            return
        serves = np.full(len(self.events.row), ROW)
        if len(several := (self.stop - self.cursor > 1).nonzero()[0]):
            serves = self._look_ahead(several)
        if len(self.order):
            scan.write_histories(self.c, self.events, self.rules, self.order, self.cursor, self.stop)
            self.rules = self.engine.rules_written
        if len(index := self._observations(self.order)):
            self._predict(index, THETA, self.theta.predictor.of_theta(self.events.x[index]))
            self._predict_adapted(index, self.rows["fast"], self.events.row[index], serves[index])

    def _look_ahead(self, tasks: Int64) -> Int64:
        """Run every adaptation that tasks come to before `end`; returns which serves each event [N], or ROW."""
        self._leave_episodes(tasks)
        ahead = look_ahead(
            self.rows, self.events, self.out, self.rules, self.theta.version, tasks, self.order, self.cursor,
            self.end,
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
        index = self._observations(self.order[scan.runs(self.cursor[tasks], self.end[tasks])])
        place = np.searchsorted(tasks, self.events.row[index])
        self._predict_adapted(index, self.rows["fast"][tasks], place, serves[index])

    def fold_round(self, active: Int64) -> None:
        """Fold each active task's events up to an adaptation that was not foreseen, then adapt those that are due."""
        if self.theta.meta.version and len(ended := active[self.cursor[active] == self.end[active]]):
            self._look_ahead_again(ended)
        scan.scan(
            self.c, self.events, self.out, self.rules, self.theta.version, self.work,
            active, self.order, self.cursor, self.end, self.reason, self.last,
        )  # fmt: skip
        if self.reason[active].any():
            self._ask_detector(active[self.reason[active] == scan_arrays.ASK_DETECTOR])
        due = active[self.reason[active] != scan_arrays.NOT_DUE]
        if self.aheads:
            is_foreseen = self.work.foreseen[due] & (self.reason[due] == scan_arrays.SCHEDULED)
            self._take_ahead(due[is_foreseen])
            due = due[~is_foreseen]
        self._adapt_due(due)

    def _predict_adapted(self, index: Int64, fast: Float32, place: Int64, serves: Int64) -> None:
        """The adapted model's prediction of observations [n], the i-th by what serves[i] found ahead.

        Where that is ROW it is by the fast parameters fast[place[i]] of its task.
        """
        if self.theta.unmoved:
            self.out.prediction[index, ADAPTED] = self.out.prediction[index, THETA]
        elif len(index):
            found = [ahead.values for ahead in self.aheads[-1:]]
            which = np.where(serves == ROW, place, serves + len(fast))
            outputs = self.theta.predictor.of_tasks(
                np.concatenate([fast, *found]), which, self.events.x[index]
            )
            self._predict(index, ADAPTED, outputs)

    def _observations(self, index: Int64) -> Int64:
        observations: Int64 = index[self.events.kind[index] == OBSERVATION]
        return observations

    def _predict(self, index: Int64, expert: int, outputs: Float32) -> None:
        """Take outputs [n, C] as an expert's predictions of events; what is not finite is replaced and counted."""
        calibration, rules = self.theta.calibration, self.rules
        if outputs.shape != (len(index), rules.outputs) or outputs.dtype != np.float32:
            raise EngineError(
                f"the learner predicts {outputs.dtype} of shape {outputs.shape} for {len(index)} observations, "
                f"expected float32 of shape {(len(index), rules.outputs)}: return an output a class for each"
            )
        self.not_finite += write_predictions(outputs, calibration, rules, index, expert, self.out.prediction)

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
        left = room_for(count, count, self.c)
        leave_all(self.c, tasks, self.last, left)
        first, due = (
            weighed(sets, count, self.engine.spec.slots, self.rules.balanced)
            for sets in (left.first, left.due)
        )
        self.episodes += episodes_of(left, first, due, range(count))
        if self.theta.meta.version:
            self.end[tasks] = self.cursor[tasks]
            self._keep(tasks, self._adapted_from(due, count))

    def _adapt(self, tasks: Int64) -> None:
        """Compute the fast parameters of tasks from theta and their support sets as of `adapted_through`."""
        if len(tasks) and self.theta.meta.version:
            support = None if self.theta.unmoved else support_of(self.c, tasks, self.rules.balanced)
            self._keep(tasks, self._adapted_from(support, len(tasks)))

    def _adapted_from(self, support: Support | None, tasks: int) -> Float32:
        """Fast parameters [T, F] for support sets: task by task, or in full blocks of a bucket; theta's for none."""
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
        sound = np.isfinite(values).all(axis=1, keepdims=True)
        if not sound.all():
            self.not_finite += int((~sound).sum())
            kept = self.rows["fast"][tasks]
            kept[self.rows["fast_version"][tasks] == 0] = self.theta.unadapted
            values = np.where(sound, values, kept)
        self.rows["fast"][tasks] = values
        self.rows["fast_version"][tasks] = self.theta.meta.version
        self.adaptations += len(tasks)

    def result(self) -> Folded:
        """The new rows, and what became of the events."""
        if self.aheads:
            self._leave_episodes(np.arange(len(self.states)))
        episodes = sorted(self.episodes, key=lambda episode: episode.event)
        outcomes = Outcomes(**self.out._asdict())
        return Folded(self.states, outcomes, episodes, self.adaptations, self.not_finite, self.inner_loops)

"""One fold in progress: the rows that are being written, and how far each task has come."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from engine.batches import BLOCK, bucket_of
from engine.learners.base import flatten
from engine.stream import answers, scan, scan_arrays, support_slots
from engine.stream.events import EventBatch
from engine.stream.look_ahead import ROW, look_ahead
from engine.stream.predictions import write_predictions
from engine.stream.prepared import Prepared
from engine.stream.scan_arrays import OBSERVATION
from engine.stream.sources import not_folded_yet
from engine.stream.support import Support, episodes_of, examples_of, padded, support_of
from engine.stream.table import TaskTable, columns_of, with_spare
from engine.types import (
    ADAPTED,
    THETA,
    Batch,
    EngineError,
    Episode,
    Float32,
    Int64,
    Outcome,
    Outcomes,
)

if TYPE_CHECKING:
    from engine.stream.fold import Engine


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
        self.events = engine.requirements.checked(events, len(states))
        count, tasks = len(events), len(states)
        # With one row more every view of a field is strided, as the compiled loops expect.
        self.rows = with_spare(states.rows, 1)
        self.c = columns_of(self.rows)
        self.out = scan_arrays.blank_results(count, engine.rules.outputs, self.events.x.shape[1])
        self.out.prediction.fill(np.nan)
        self.adapted = np.zeros(count, np.bool_)
        fresh = not_folded_yet(self.states, self.rows, self.events, engine.follows)
        self.order, (self.cursor, self.stop) = np.empty(count, np.int64), np.zeros((2, tasks), np.int64)
        if (folded := scan.by_task(self.events.row, fresh, self.order, self.cursor, self.stop)) < count:
            self.order = self.order[:folded]
            answers.answer_again(self.c, self.events, self.out, engine.rules, np.flatnonzero(~fresh))
        self.reason, self.last, self.next_ahead = np.zeros((3, tasks), np.int64)
        self.is_predicted, self.is_foreseen = np.zeros((2, tasks), np.bool_)
        self.values_ahead = self.rows["fast"][:0]
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
        self.is_predicted = self.cursor < self.stop
        serves = np.full(len(self.events.row), ROW)
        if len(several := (self.stop - self.cursor > 1).nonzero()[0]):
            self._look_ahead(several, serves)
        if len(index := self._observations(self.order)):
            scan.write_histories(self.c, self.events, self.engine.rules, index, self.cursor, self.stop)
            self._predict(index, THETA, self.theta.predictor.of_theta(self.events.x[index]))
            self._predict_adapted(index[self.is_predicted[self.events.row[index]]], serves)

    def _look_ahead(self, tasks: Int64, serves: Int64) -> None:
        """Run every adaptation that tasks of several events will come to; `serves` [N] is written of theirs."""
        ahead = look_ahead(
            self.rows, self.events, self.engine.rules, self.theta.version, tasks, self.order, self.cursor, self.stop,
            reads=not self.theta.unmoved,
        )  # fmt: skip
        self.is_foreseen[tasks] = True
        by_task = np.argsort(ahead.task, kind="stable")
        self.values_ahead = self._adapted_from(ahead.support, len(by_task))[by_task]
        self.next_ahead = np.searchsorted(ahead.task[by_task], np.arange(len(self.states)))
        sound = np.isfinite(self.values_ahead).all(axis=1)
        self.is_predicted[ahead.task[by_task][~sound]] = False
        place = np.empty_like(by_task)
        place[by_task] = np.arange(len(by_task))
        served = ahead.serves != ROW
        serves[served] = place[ahead.serves[served]]

    def fold_round(self, active: Int64) -> None:
        """Fold each active task's run of events up to its next adaptation, then adapt those that are due."""
        end = self.stop
        alone = active[~self.is_predicted[active]]
        if len(alone) and self.theta.meta.version:
            end = self.stop.copy()
            scan.run_ends(self.c, self.events, self.engine.rules, alone, self.order, self.cursor, end)
            run = self.order[scan.runs(self.cursor[alone], end[alone])]
            self._predict_adapted(self._observations(run), np.full(len(self.events.row), ROW))
        scan.scan(
            self.c, self.events, self.out, self.engine.rules, self.theta.version,
            active, self.order, self.cursor, end, self.reason, self.last,
        )  # fmt: skip
        reason = self.reason[active]
        if reason.any():
            self._ask_detector(active[reason == scan_arrays.ASK_DETECTOR])
            self._adapt_due(active[self.reason[active] != scan_arrays.NOT_DUE])

    def _predict_adapted(self, index: Int64, serves: Int64) -> None:
        """The adapted model's prediction of observations, by the adaptation that serves each."""
        if self.theta.unmoved:
            self.out.prediction[index, ADAPTED] = self.out.prediction[index, THETA]
        elif len(index):
            fast = self.rows["fast"][self.events.row[index]]
            ahead = serves[index]
            known = ahead != ROW
            fast[known] = self.values_ahead[ahead[known]]
            self._predict(index, ADAPTED, self.theta.predictor.of_tasks(fast, self.events.x[index]))

    def _observations(self, index: Int64) -> Int64:
        observations: Int64 = index[self.events.kind[index] == OBSERVATION]
        return observations

    def _predict(self, index: Int64, expert: int, outputs: Float32) -> None:
        """Take outputs [n, C] as an expert's predictions of events; what is not finite is replaced and counted."""
        calibration, rules = self.theta.calibration, self.engine.rules
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
            answers.surprise(self.c, u, self.c.counts[u, Outcome.SCORED], loss, self.engine.rules)
            for u, loss in zip(tasks.tolist(), self.out.loss[events, ADAPTED].tolist(), strict=True)
        ]
        alarms = self.engine.spec.detector.update(states, np.array(fed))
        self.c.detector[tasks] = states
        for u, n, alarm in zip(tasks.tolist(), events.tolist(), alarms.tolist(), strict=True):
            if alarm:
                self.out.alarm[n] = True
                support_slots.cut_to_recent(self.c, u, self.engine.rules)
            scheduled = scan.due(self.c.seq[u], self.engine.rules.every)
            self.reason[u] = (
                scan_arrays.ALARM if alarm else scan_arrays.SCHEDULED if scheduled else scan_arrays.NOT_DUE
            )

    def _adapt_due(self, tasks: Int64) -> None:
        """Leave an episode of each task that is due, then adapt it on its support set as of now."""
        if not len(tasks):
            return
        balanced = self.engine.rules.balanced
        self.episodes += episodes_of(self.c, tasks, self.last, balanced)
        self.c.adapted_through[tasks] = self.c.seq[tasks]
        self.c.adapted_counts[tasks] = self.c.class_counts[tasks]
        self.adapted[self.last[tasks]] = True
        foreseen = self.is_foreseen[tasks] & self.is_predicted[tasks]
        foreseen &= self.reason[tasks] == scan_arrays.SCHEDULED
        known, others = tasks[foreseen], tasks[~foreseen]
        self._keep(known, self.values_ahead[self.next_ahead[known]])
        self.next_ahead[known] += 1
        self.is_predicted[others] = False
        self._adapt(others)

    def _adapt(self, tasks: Int64) -> None:
        """Compute the fast parameters of tasks from theta and their support sets as of `adapted_through`."""
        if len(tasks) and self.theta.meta.version:
            balanced = self.engine.rules.balanced
            support = None if self.theta.unmoved else support_of(self.c, tasks, balanced)
            self._keep(tasks, self._adapted_from(support, len(tasks)))

    def _adapted_from(self, support: Support | None, tasks: int) -> Float32:
        """Fast parameters [T, F] for support sets: task by task, or in full blocks of a bucket; theta's for none."""
        if support is None:
            return np.repeat(self.theta.unadapted, tasks, axis=0)
        if self.theta.inner_loop is not None:
            began = perf_counter()
            values = self.theta.inner_loop.adapt(*examples_of(support))
            self.inner_loops.append((perf_counter() - began, tasks))
            return values
        values = np.empty((tasks, self.rows["fast"].shape[1]), np.float32)
        buckets = np.array([bucket_of(size) for size in support.sizes.tolist()])
        for bucket in np.unique(buckets):
            members = np.flatnonzero(buckets == bucket)
            for part in _blocks(len(members), BLOCK):
                padding = padded(support, members[part], BLOCK)
                block = Batch(*(column.to(self.engine.device) for column in padding))
                began = perf_counter()
                fast = flatten(self.engine.learner.adapt(self.theta.meta.params, block))
                values[members[part]] = fast.cpu().numpy()[: len(part)]
                self.inner_loops.append((perf_counter() - began, len(part)))
        return values

    def _keep(self, tasks: Int64, values: Float32) -> None:
        """Write fast parameters [T, F] to the rows; what is not finite keeps the previous ones."""
        if not len(tasks):
            return
        sound = np.isfinite(values).all(axis=1, keepdims=True)
        kept = self.rows["fast"][tasks]
        if not sound.all():
            self.not_finite += int((~sound).sum())
            kept[self.rows["fast_version"][tasks] == 0] = self.theta.unadapted
        self.rows["fast"][tasks] = np.where(sound, values, kept)
        self.rows["fast_version"][tasks] = self.theta.meta.version
        self.adaptations += len(tasks)

    def result(self) -> Folded:
        """The new rows, and what became of the events."""
        states = TaskTable(self.states.layout, self.states.ids, self.rows[:-1])
        outcomes = Outcomes(**self.out._asdict(), adapted=self.adapted)
        episodes = sorted(self.episodes, key=lambda episode: episode.event)
        return Folded(states, outcomes, episodes, self.adaptations, self.not_finite, self.inner_loops)


def _blocks(count: int, size: int) -> Iterator[Int64]:
    """Indices of `count` things in runs of at most `size`."""
    return (np.arange(start, min(start + size, count)) for start in range(0, count, size))

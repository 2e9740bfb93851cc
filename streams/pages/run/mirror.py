"""What a task's own labels and an online linear model would have said, of the very labels that a run scored.

A mirror for every user: models that adapt are worth their trouble only where they beat what sixty lines would have
done. The log is replayed once, when a report is written, so what the mirror shows is a function of the log: a run
that was stopped and started again has the same. An observation is predicted in its place of the log and learned
from in the place of its label, however late; further labels of an observation count for nothing. A record that the
run refuses is left out.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from engine.evaluation.prequential.linear_model import LinearModel, Stream, grown, rules_of
from engine.evaluation.prequential.task_rates import STRENGTHS, WEIGHTS, TaskRates
from engine.features.columns import Category
from engine.features.encoder import Features
from engine.problem import Problem
from engine.targets import Classification, Regression
from engine.types import Float32, Float64, Int64, Kind
from streams.events.decoding import Decoded, decode
from streams.logs.base import ReplayLog
from streams.pages.kit.phrases import MIRROR
from streams.pages.run.evaluation import Extra

EVENTS_AT_ONCE = 65_536

REMEMBERED = 65_536
"""How many labelled observations are known again, so that a label which comes twice is learned from once."""

FEWEST_BUCKETS = 2**15
"""Of a category: with fewer, values would share weights, and the mirror would flatter us."""

OBSERVATION = int(Kind.OBSERVATION)  # comparing with a member of an enumeration costs as much as the rest

Model = LinearModel | TaskRates


class _Labels(NamedTuple):
    """The labels of one stretch of the log."""

    offset: Int64
    """[L]"""
    y: Float64
    """[L]"""
    prediction: Float32
    """[L, k, C]"""


def mirrored(log: ReplayLog, problem: Problem) -> Extra:
    """Replay the log up to where it stands: the predictors `MIRROR`, of every label that met its observation.

    Each is the leader of a few variants, chosen by the labels known at the time.
    """
    end = log.position()
    log.seek(0)
    try:
        parts = list(_Replay(problem).parts(log, end))
    finally:
        log.seek(end)
    shape = (0, len(MIRROR), rules_of(problem.target).outputs)
    none = _Labels(np.zeros(0, np.int64), np.zeros(0), np.zeros(shape, np.float32))
    offset, y, prediction = (np.concatenate(columns) for columns in zip(none, *parts, strict=True))
    return Extra(tuple(MIRROR), offset, prediction, _losses(prediction, y, problem.target))


class _Replay:
    """The log, replayed once from its start; S observations wait for their label, each in a place of its own."""

    def __init__(self, problem: Problem) -> None:
        self._problem = replace(problem, features=_roomy(problem.features))
        last = WEIGHTS if isinstance(problem.target, Classification) else (1.0,)
        self._models: tuple[Model, ...] = (
            TaskRates(problem.target, STRENGTHS),
            TaskRates(problem.target, last, last=True),
            LinearModel(self._problem.features, problem.target),
        )
        self._x = np.zeros((0, self._problem.features.width), np.float32)
        self._task = np.zeros(0, np.int64)
        self._places = 0
        self._free: list[int] = []
        self._waiting: dict[tuple[int, int], int] = {}
        self._labelled: OrderedDict[tuple[int, int], None] = OrderedDict()
        self._tasks: dict[str, int] = {}

    def parts(self, log: ReplayLog, end: int) -> Iterator[_Labels]:
        """Every stretch of the log up to an offset."""
        while log.position() < end:
            yield self._follow(decode(log.poll(min(EVENTS_AT_ONCE, end - log.position())), self._problem))

    def _follow(self, decoded: Decoded) -> _Labels:
        order, counted = self._joined(decoded)
        y = decoded.events.y[counted].astype(np.float64)
        stream = Stream(self._x, self._task, order, y)
        said = np.stack([_led(model, stream) for model in self._models], axis=1)
        is_label = order < 0
        self._free += (~order[is_label]).tolist()
        while len(self._labelled) > REMEMBERED:
            self._labelled.popitem(last=False)
        return _Labels(decoded.events.offset[counted][is_label], y[is_label], said)

    def _joined(self, decoded: Decoded) -> tuple[Int64, Int64]:
        """The events that count as `Stream.order`, and which of the batch they are."""
        events, waiting, labelled = decoded.events, self._waiting, self._labelled
        numbers = np.array(
            [self._tasks.setdefault(task, len(self._tasks)) for task in decoded.tasks], np.int64
        )
        task = numbers[events.row]
        order, counted = list[int](), list[int]()
        columns = zip(task.tolist(), events.id.tolist(), events.kind.tolist(), strict=True)
        for n, (number, identity, kind) in enumerate(columns):
            event = number, identity
            if kind == OBSERVATION:
                if event not in waiting and event not in labelled:
                    order.append(self._placed(event))
                    counted.append(n)
            elif event in waiting:
                order.append(~waiting.pop(event))
                counted.append(n)
                labelled[event] = None
        places, index = np.array(order, np.int64), np.array(counted, np.int64)
        observed = index[places >= 0]
        self._keep(places[places >= 0], events.x[observed], task[observed])
        return places, index

    def _placed(self, event: tuple[int, int]) -> int:
        """A free place for an observation."""
        if not self._free:
            self._free.append(self._places)
            self._places += 1
        place = self._waiting[event] = self._free.pop()
        return place

    def _keep(self, places: Int64, x: Float32, task: Int64) -> None:
        """Put new observations in their places."""
        self._x, self._task = grown(self._x, self._places), grown(self._task, self._places)
        self._x[places], self._task[places] = x, task


def _roomy(features: Features) -> Features:
    """The same columns, with room for categories of many values."""
    return Features(
        tuple(
            replace(column, buckets=max(column.buckets, FEWEST_BUCKETS))
            if isinstance(column, Category)
            else column
            for column in features.columns
        )
    )


def _led(model: Model, stream: Stream) -> Float32:
    """What the leader of a model's variants said of each label."""
    judged = model.follow(stream)
    return judged.prediction[np.arange(len(judged.leader)), judged.leader]


def _losses(prediction: Float32, y: Float64, target: Classification | Regression) -> Float64:
    """[L, k] log loss, or squared error."""
    said = prediction.astype(np.float64)
    if isinstance(target, Regression):
        return np.square(said[:, :, 0] - y[:, None])
    true = np.take_along_axis(said, y.astype(np.int64)[:, None, None], axis=2)
    return -np.log(true[:, :, 0])

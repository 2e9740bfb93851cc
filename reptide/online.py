"""`Online`: a stream in a few lines of Python, on the fold, the hedge and the trainer that `reptide run` uses.

What it serves is what `reptide run` would have served for the same events in the same order.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from engine.features.columns import Column
from engine.features.encoder import Features
from engine.stream.in_progress import Folded
from engine.stream.table import TaskTable, in_one_piece, taken
from engine.targets import Classification, Regression
from engine.types import PREDICTORS, SERVED, EngineError, Kind, Outcome
from reptide.frames import Names, field, rows_of
from reptide.given import settings_of
from reptide.predictions import Label, Prediction, prediction
from reptide.record import Learned, Report
from reptide.saved import load, save
from streams.assembly import learners, parts
from streams.events.decoding import Decoded, decode
from streams.events.learned_labels import LearnedLabel
from streams.events.record import Polled, Record
from streams.program.label_window import LabelWindow
from streams.program.outputs import learned_labels
from streams.program.schedule import Schedule
from streams.program.theta import ThetaCache
from streams.stores.memory import MemoryMeta

FIRST_TASKS = 64
"""Rows that are made at first; their room doubles as tasks come."""

INCARNATION = 1
"""Of the events of one `Online`: they have no other log."""


class Online:
    """A model of its own for every task, served before each label and learned from it after.

    Not safe for several threads at once; a model of its own per process, or `reptide worker`, shares the work.
    """

    def __init__(
        self,
        features: Sequence[Column],
        target: Classification | Regression,
        *,
        settings: Mapping[str, Any] | None = None,
        network: Callable[[int, int], nn.Module] | None = None,
    ) -> None:
        """A model that has seen nothing.

        Args:
            features: the fields that are read of each event.
            target: classes, or the range of a number.
            settings: any of a settings file by their path, such as {"outer.every": 1024, "learner": "prototype"}.
            network: builds the torch module behind the encoder, of so many inputs and outputs; else settings name it.

        Raises:
            ReptideError, EngineError: a setting, a column or the network cannot be used; says which, and the way out.

        """
        self.given, self.network = settings or {}, network
        self.settings = settings_of(features, target, self.given)
        problem = learners.problem_of(self.settings)
        problem = replace(problem, target=target, features=Features(tuple(features)))
        problem = replace(problem, network=network) if network else problem
        spec = parts.stream_spec(self.settings, problem)
        self.engine = parts.stream_engine(self.settings, spec, learners.learner(self.settings, problem))
        self.versions = MemoryMeta()
        self.trainer = parts.trainer(self.settings, spec, self.engine.learner, self.versions)
        self.schedule = Schedule(self.settings.outer.every)
        self.position, self.trained_through = 0, 0
        self.window: deque[LearnedLabel] = deque(maxlen=self.trainer.window)
        self.new: list[LearnedLabel] = []
        self.row_of: dict[str, int] = {}
        self.rows = TaskTable.empty(self.engine.layout, [str(n) for n in range(FIRST_TASKS)]).rows
        self._theta = ThetaCache(self.engine, self.versions)

    def predict_one(self, task: Any, x: Mapping[str, Any], *, id: Any = None, at: Any = None) -> Prediction:
        """What is served for an observation of a task, which then waits for its label.

        Args:
            task: whose it is: text or a whole number.
            x: the fields of the event; those that no column reads are passed over.
            id: of the observation, which its label is to carry; one is made where it is not given.
            at: event time: seconds since the epoch, ISO 8601, or a datetime; now, where it is not given.

        Raises:
            EngineError: the event cannot be used; nothing has changed.

        """
        return self._predict([self._record(Kind.OBSERVATION, task, id, at, None, x)])[0]

    def learn_one(
        self, task: Any, label: Label, *, x: Mapping[str, Any] | None = None, id: Any = None, at: Any = None
    ) -> Learned:
        """Learn a label of a task: late, out of order, or a second time too.

        Args:
            task: whose it is.
            label: the class, or the number.
            x: its fields, where there may have been no prediction before.
            id: of the observation; needed where no `x` is given.
            at: when the label became known; now, where it is not given.

        Raises:
            EngineError: the label cannot be used; nothing has changed.

        """
        return self._learn([self._record(Kind.LABEL, task, id, at, label, x)])[0]

    def predict_many(
        self, rows: Any, *, task: str, id: str | None = None, at: str | None = None
    ) -> list[Prediction]:
        """What is served for many observations, in order.

        Args:
            rows: a frame of polars or pandas, or dicts.
            task: the name of the field that says whose an observation is.
            id: the name of the field with its id.
            at: the name of the field with its time.

        Raises:
            EngineError: a row cannot be used; nothing of them has been taken.

        """
        fields = Names(task, id, at)
        return self._predict(
            [
                self._record(Kind.OBSERVATION, *fields.of(row), None, row, n)
                for n, row in enumerate(rows_of(rows))
            ]
        )

    def learn_many(
        self, rows: Any, *, task: str, label: str, id: str | None = None, at: str | None = None
    ) -> list[Learned]:
        """Learn many labels, in order; the fields beside are features to learn from, where all are there.

        Args:
            rows: a frame of polars or pandas, or dicts.
            task: the name of the field that says whose a label is.
            label: the name of the field with the class, or the number.
            id: the name of the field with the id of its observation.
            at: the name of the field with the time when it became known.

        Raises:
            EngineError: a row cannot be used; nothing of them has been taken.

        """
        fields, known = Names(task, id, at), self.engine.spec.problem.features.names
        return self._learn([
            self._record(
                Kind.LABEL, *fields.of(row), field(row, label), row if known <= row.keys() else None, n
            )
            for n, row in enumerate(rows_of(rows))
        ])  # fmt: skip

    def report(self) -> Report:
        """What was served so far, as it was scored."""
        rows = self.rows[: len(self.row_of)]
        counts, sums = rows["counts"].sum(axis=0).tolist(), rows["score_sums"].sum(axis=0).tolist()
        scored = max(counts[Outcome.SCORED], 1)
        return Report(
            tasks=len(rows),
            version=self.versions.current(),
            outcomes={outcome.name.lower(): counts[outcome] for outcome in Outcome},
            loss={name: total / scored for name, total in zip(PREDICTORS, sums, strict=True)},
        )

    def save(self, folder: Path | str) -> None:
        """Write everything to a new folder, from which `load` goes on bit for bit.

        Raises:
            ReptideError: the folder holds something, or the network is no function of a module.

        """
        save(self, Path(folder))

    @classmethod
    def load(cls, folder: Path | str) -> Online:
        """Go on from what `save` wrote.

        Raises:
            ReptideError: the folder is missing or damaged, or its network cannot be imported.

        """
        return load(cls, Path(folder))

    def _record(
        self, kind: Kind, task: Any, id: Any, at: Any, label: Any, x: Mapping[str, Any] | None, after: int = 0
    ) -> Record:
        """An event at the next offset, or so many after it."""
        if kind == Kind.LABEL and id is None and x is None:
            raise EngineError(
                f"the label of task {task!r} has neither the id of its observation (`prediction.id`) nor features "
                "to learn from; give id or x"
            )
        offset = self.position + after
        known = (f"event {offset}" if id is None else id), (time.time() if at is None else at)
        return Record(offset, kind, task, *known, label, x)

    def _predict(self, records: Sequence[Record]) -> list[Prediction]:
        target, served = self.engine.spec.problem.target, list[Prediction]()
        for decoded, folded in self._folded(records):
            out = folded.outcomes
            for n, record in enumerate(decoded.records):
                values = out.prediction[n]
                if np.isnan(values[SERVED]).any():
                    raise EngineError(
                        f"observation {record.id!r} of task {record.task!r} has its label already, or waited too "
                        "long for it: give each observation an id of its own"
                    )
                origin = {
                    "id": str(record.id),
                    "version": int(out.version[n]),
                    "weight": float(out.weight[n]),
                }
                served.append(prediction(target, values, **origin))
        return served

    def _learn(self, records: Sequence[Record]) -> list[Learned]:
        return [
            Learned(Outcome(code).name.lower(), loss, alarm, adapted)
            for _, folded in self._folded(records)
            for code, loss, alarm, adapted in zip(
                folded.outcomes.code.tolist(),
                folded.outcomes.loss[:, SERVED].tolist(),
                folded.outcomes.alarm.tolist(),
                folded.outcomes.adapted.tolist(),
                strict=True,
            )
        ]

    def _folded(self, records: Sequence[Record]) -> Iterator[tuple[Decoded, Folded]]:
        """Fold events, those of one version of theta at a time; all are checked before the first."""
        if not records:
            return
        whole = self._decoded(records)
        before = 0
        while before < len(records):
            if self.schedule.cell(self.position) == self.position > self.trained_through:
                self._train()
            after = min(len(records), before + self.schedule.next(self.position) - self.position)
            part = whole if after - before == len(records) else self._decoded(records[before:after])
            yield part, self._fold(part)
            before = after

    def _decoded(self, records: Sequence[Record]) -> Decoded:
        decoded = decode([Polled(0, (INCARNATION,), self.position, records)], self.engine.spec.problem)
        for refused in decoded.rejected:
            raise EngineError(
                f"{refused.record.kind.name.lower()} {refused.record.id!r} of task {refused.record.task!r}: "
                f"{refused.detail} ({refused.reason})"
            )
        return decoded

    def _fold(self, part: Decoded) -> Folded:
        index = np.array([self.row(task) for task in part.tasks], np.int64)
        states = TaskTable(self.engine.layout, part.tasks, taken(self.rows, index))
        folded = self.engine.fold_into(states, part.events, self._theta.get(self.versions.current()))
        in_one_piece(self.rows)[index] = in_one_piece(folded.states.rows)
        self.position += len(part.records)
        if folded.outcomes.learned.any():
            rate = self.settings.outer.support_rate
            self.new += learned_labels(part.events, part.tasks, folded, rate)
        return folded

    def row(self, task: str) -> int:
        """Where a task's row is; one that is new gets one."""
        row = self.row_of.setdefault(task, len(self.row_of))
        if row == len(self.rows):
            more = TaskTable.empty(self.engine.layout, [str(n) for n in range(len(self.rows))]).rows
            self.rows = np.concatenate([self.rows, more])
        return row

    def _train(self) -> None:
        """A round of the outer loop on the labels since the last, as it falls due."""
        self.trained_through = self.position
        if not self.new:
            return
        before = self.trainer.newest()
        self.trainer.advance(before, LabelWindow.of([*self.window, *self.new]), len(self.new), {})
        self.window.extend(label._replace(episode=None) for label in self.new)
        self.new = []
        self.versions.drop({before.version} if before else set())

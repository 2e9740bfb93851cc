"""`Engine.fold`: events in, new rows and outcomes out; pure, and the same bits however the stream was cut.

Within a task events are folded strictly in order, across tasks side by side. All adaptations that the batch
brings are found ahead (`engine.stream.look_ahead`) and run together, and so are all predictions; then, in rounds,
`engine.stream.scan` folds each task's events up to an adaptation that was not foreseen. That is the one at an alarm:
from there its task is looked ahead again, ever further.

Tensor calls always run in full padded blocks of one size a kind, on one thread: matrix kernels choose their order of
summation by shape, so only a fixed shape makes a task's bits independent of its batch mates.
"""

from __future__ import annotations

from typing import NamedTuple

from engine.kernels.kernel import gradient_learner, rows_of
from engine.learners.base import Learner
from engine.stream.events import EventBatch
from engine.stream.in_progress import Folded, FoldInProgress
from engine.stream.layout import Layout, layout_of
from engine.stream.prepared import Prepared
from engine.stream.requirements import Requirements
from engine.stream.rounding import fast_places
from engine.stream.rules import rules_of
from engine.stream.scan_arrays import Events
from engine.stream.sources import TakenUp, each_alone, taken_up
from engine.stream.spec import StreamSpec
from engine.stream.table import TaskTable
from engine.traced import Recorded
from engine.types import (
    EngineError,
    Float32,
    Float64,
    Meta,
)

KEPT = 8
"""Versions of theta that are kept prepared."""


class Prediction(NamedTuple):
    """What would be served now: [U, C] each."""

    base: Float32
    recent: Float32
    theta: Float32
    adapted: Float32
    served: Float32


class Engine:
    """Folds events into rows for one stream spec. Holds no state that a fold could change: threads may share it.

    Tensor calls run on `device`, where the parameters of a `Meta` must lie; rows stay in memory. Equal bits are
    promised on processors of one kind, not across devices.
    """

    def __init__(
        self, spec: StreamSpec, learner: Learner | None = None, device: str = "cpu", follows: bool = False
    ) -> None:
        """`follows` a task to another partition instead of refusing it: only where each event is read once."""
        self.spec, self.device, self.follows = spec, device, follows
        self.learner: Learner = learner or gradient_learner(spec.problem)
        if self.learner.problem.support != spec.problem.support:
            raise EngineError(
                f"the learner was made for support sets of {self.learner.problem.support} examples, the rows of this "
                f"stream hold {spec.problem.support}; make the learner of spec.problem"
            )
        self.layout: Layout = layout_of(spec, self.learner)
        self.rules = rules_of(spec)
        self.rules_written = self.rules._replace(writes_history=False)
        """The same where histories are written already."""
        self.requirements = Requirements(spec)
        self.rounded_fast = fast_places(spec, self.learner)
        self.network = rows_of(self.learner) if device == "cpu" else None
        self.predict_adapted = Recorded(self.learner.predict)
        self.predict_shared = Recorded(self.learner.shared)
        self._prepared: tuple[Prepared, ...] = ()

    def fold(self, states: TaskTable, events: EventBatch, meta: Meta) -> Folded:
        """Fold N events of U tasks; `states` is left as it is.

        Raises as `fold_into`.
        """
        return self.fold_into(states.copy(), events, meta)

    def fold_into(self, states: TaskTable, events: EventBatch, meta: Meta) -> Folded:
        """The same, of a table that is given away: its rows become those of the result, and no row is copied.

        Raises:
            EngineError: an event cannot be folded, or the table or theta are of another stream spec.
            SourceMoved: a task was folded from another partition or incarnation of a topic; the rows are spoilt.
        """
        self._check_layout(states)
        theta, checked = self._theta(meta), self.requirements.checked(events, len(states))
        return self._folded(states, checked, theta, taken_up(states, checked, self.follows))

    def _check_layout(self, states: TaskTable) -> None:
        if states.layout.fingerprint != self.layout.fingerprint:
            raise EngineError(
                f"the table has layout {states.layout.fingerprint:016x}, this engine {self.layout.fingerprint:016x}; "
                "make or decode the table with engine.layout"
            )

    def _folded(self, states: TaskTable, events: Events, theta: Prepared, new: TakenUp) -> Folded:
        """Fold what is new of events that were checked."""
        work = FoldInProgress(self, states, events, theta, new)
        active = work.unfolded()
        work.adapt_stale(active)
        work.work_ahead()
        while len(active):
            work.fold_round(active)
            active = work.unfolded()
        return work.result()

    def _theta(self, meta: Meta) -> Prepared:
        """A version of theta, prepared; of those that were, as many are kept as workers adopt side by side.

        Those that are kept are never changed in place, so a thread that comes between costs one of them at most.
        """
        kept = self._prepared
        if kept and kept[-1].meta is meta:
            return kept[-1]
        known = next((one for one in kept if one.meta is meta), None) or Prepared(self, meta)
        self._prepared = (*(one for one in kept if one is not known), known)[-KEPT:]
        return known

    def predict(self, states: TaskTable, x: Float32, meta: Meta, time_s: Float64) -> Prediction:
        """The read path: what an observation of each of U tasks would be served; changes nothing.

        x [U, own width] are features in stored form; `time_s` [U] is when the observations would come: what has
        expired by then, and how long ago the last events were, is part of the answer.

        Raises:
            EngineError: x or a time is none that an observation may have.
        """
        self._check_layout(states)
        asked = self.requirements.asked(x, time_s, len(states))
        folded = self._folded(states.copy(), asked, self._theta(meta), each_alone(asked))
        return Prediction._make(folded.outcomes.prediction.transpose(1, 0, 2))

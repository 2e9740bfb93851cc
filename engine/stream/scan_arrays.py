"""What the scan reads and fills, array by array, and how the compiler sees each."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from engine.compiled import arrays, scalars
from engine.stream.support import LEFT_LAYOUT, NOTHING_LEFT, Left
from engine.types import PREDICTORS, Kind, Outcome

OBSERVATION, LABEL = int(Kind.OBSERVATION), int(Kind.LABEL)


PREDICTED, SCORED = int(Outcome.PREDICTED), int(Outcome.SCORED)


REPEATED_OBSERVATION, REPEATED_LABEL = int(Outcome.REPEATED_OBSERVATION), int(Outcome.REPEATED_LABEL)


CORRECTED, LATE, ORPHAN = int(Outcome.CORRECTED), int(Outcome.LATE), int(Outcome.ORPHAN)


EXAMPLE, EXPIRED_COUNT = int(Outcome.EXAMPLE), int(Outcome.EXPIRED)


DUPLICATE = int(Outcome.DUPLICATE)


NOT_DUE, SCHEDULED, ALARM, ASK_DETECTOR = 0, 1, 2, 3
"""Why a task's run of events ends, if it does."""


class Events(NamedTuple):
    """The columns of an `EventBatch` as compiled loops read them."""

    kind: Any
    id: Any
    time_s: Any
    x: Any
    """[N, W] with room for the history."""
    has_x: Any
    y: Any
    topic: Any
    offset: Any
    row: Any
    partition: Any
    incarnation: Any


class Results(NamedTuple):
    """The columns of `Outcomes`, written in place; `prediction` comes in holding theta's and the adapted one's."""

    code: Any
    prediction: Any
    loss: Any
    shared_loss: Any
    version: Any
    seen: Any
    waited_s: Any
    weight: Any
    alarm: Any
    adapted: Any
    expired: Any
    learned: Any
    learned_x: Any


class Version(NamedTuple):
    """What the scan needs of a version of theta."""

    number: int
    prior: Any
    """[5] of a lane of the hedge."""
    rates: Any
    """[C] how common each class is; of a regression the mean of all labels. Of version 0 nothing is known."""


class Rules(NamedTuple):
    """The numbers of a stream spec that the scan needs."""

    outputs: int
    named: int
    """Of the outputs, those of classes that have a name; the others have room for more."""
    floor: float
    regression: bool
    low: float
    high: float
    support: int
    balanced: bool
    ttl_s: float
    every: int
    recent: int
    refractory: int
    share: float
    detector_kind: int
    detector: tuple[float, float, float, float, float]
    writes_history: bool
    """Whether there is one, and it is not written yet."""
    hedges: bool
    """Whether predictions are made and scored."""
    own_width: int
    """Of an event's own features in a stored row; its history follows."""
    label_width: int
    """Numbers of one set of counts of labels."""
    numbers: Any
    """[M] stored places of the numbers that the history holds."""
    by: Any
    """[B] and of the categories."""
    rounded: Any
    """[K] and of what is rounded of the history."""


class Work(NamedTuple):
    """What a scan does at an adaptation, and room that it needs."""

    looks_ahead: bool
    """Whether it notes adaptations in `left`, for a fold to come."""
    foreseen: Any
    """[U] tasks whose adaptations are noted so: the scan goes on at them. At those of others it ends."""
    number: Any
    """[U] of the adaptation that each comes to next; where they are noted, of the latest, or ROW."""
    serves: Any
    """[N] where adaptations are noted, the one that serves each event, or ROW."""
    present: Any
    """[C] room to count the classes of a support set in."""
    left: Left


EVENTS_LAYOUT = arrays(
    Events,
    [
        ("uint8", 1),
        ("uint64", 1),
        ("float64", 1),
        ("float32", 2),
        ("boolean", 1),
        ("float32", 1),
        ("int64", 1),
        ("int64", 1),
        ("int64", 1),
        ("int64", 1),
        ("uint64", 1),
    ],
    strided=False,
)


RESULTS_LAYOUT = arrays(
    Results,
    [
        ("uint8", 1),
        ("float32", 3),
        ("float64", 2),
        ("float64", 1),
        ("int64", 1),
        ("int64", 1),
        ("float64", 1),
        ("float64", 1),
        ("boolean", 1),
        ("boolean", 1),
        ("int64", 1),
        ("int64", 1),
        ("float32", 2),
    ],
    strided=False,
)


WORK_LAYOUT = scalars(Work, ["boolean", "boolean[]", "int64[]", "int64[]", "int64[]", LEFT_LAYOUT])


VERSION_LAYOUT = scalars(Version, ["int64", "float64[]", "float64[]"])


RULES_LAYOUT = scalars(
    Rules,
    [
        "int64",
        "int64",
        "float64",
        "boolean",
        "float64",
        "float64",
        "int64",
        "boolean",
        "float64",
        "int64",
        "int64",
        "int64",
        "float64",
        "int64",
        ("float64", 5),
        "boolean",
        "boolean",
        "int64",
        "int64",
        "int64[]",
        "int64[]",
        "int64[]",
    ],
)


def nothing_foreseen(tasks: int, outputs: int) -> Work:
    """A scan that ends at every adaptation."""
    return Work(
        looks_ahead=False,
        foreseen=np.zeros(tasks, np.bool_),
        number=np.zeros(tasks, np.int64),
        serves=np.empty(0, np.int64),
        present=np.empty(outputs, np.int64),
        left=NOTHING_LEFT,
    )


def blank_results(events: int, outputs: int, width: int) -> Results:
    """Outcome columns before anything was folded: no event is more than a duplicate, and nothing was predicted."""
    prediction, code = np.empty((events, len(PREDICTORS), outputs), np.float32), np.empty(events, np.uint8)
    loss, shared_loss = np.empty((events, len(PREDICTORS))), np.empty(events)
    waited_s, weight = np.empty(events), np.empty(events)
    code.fill(DUPLICATE)
    for unknown in (prediction, loss, shared_loss, waited_s, weight):
        unknown.fill(np.nan)
    return Results(
        code=code,
        prediction=prediction,
        loss=loss,
        shared_loss=shared_loss,
        version=np.zeros(events, np.int64),
        seen=np.zeros(events, np.int64),
        waited_s=waited_s,
        weight=weight,
        alarm=np.zeros(events, np.bool_),
        adapted=np.zeros(events, np.bool_),
        expired=np.zeros(events, np.int64),
        learned=np.zeros(events, np.int64),
        learned_x=np.zeros((events, width), np.float32),
    )

"""The values that cross the engine's border: outcomes, and tensors in between; events are in `engine.stream.events`.

Letters used in shapes everywhere: N events, U tasks, S support examples, Q query examples, W stored
feature width, C model outputs (classes, or 1 for a regression), T input topics.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from engine.errors import EngineError as EngineError

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
UInt64 = npt.NDArray[np.uint64]
UInt8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]

Params = dict[str, Tensor]
"""A model's parameters and buffers (standardisation statistics among them) by name."""

Fast = dict[str, Tensor]
"""What adaptation yields, by name, each with a leading task axis: [U, ...]."""


def is_index(values: npt.NDArray[Any], count: Any) -> Bool:
    """Which of values are the index of one of `count` things (a number, or one each): whole, and none below 0."""
    return np.asarray((values >= 0) & (values < count) & (values == np.floor(values)))


def is_finite(value: Tensor) -> bool:
    """Whether every number of a tensor is finite: by the least and the greatest, which take no memory to find."""
    return not value.numel() or all(isfinite(end.item()) for end in value.aminmax())


class Kind(IntEnum):
    """What an event is."""

    OBSERVATION = 0
    LABEL = 1


class Outcome(IntEnum):
    """What became of one event. The row of a task counts each of them."""

    PREDICTED = 0
    """An observation, served and kept pending."""
    SCORED = 1
    """A label that met its pending observation."""
    REPEATED_OBSERVATION = 2
    """An observation whose id is pending or among the last ids resolved."""
    REPEATED_LABEL = 3
    """A second label equal to the first."""
    CORRECTED = 4
    """A second label that differs: it replaces the first in the support set; the score stands."""
    LATE = 5
    """A label whose observation had already expired."""
    ORPHAN = 6
    """A label whose observation is not known."""
    EXAMPLE = 7
    """A late or orphan label that carried features: learned from, never scored."""
    EXPIRED = 8
    """Counted, never returned: an observation whose label did not come in time."""
    DUPLICATE = 9
    """An event at or below the row's position, already folded; returned, never counted."""


class Batch(NamedTuple):
    """Examples of U tasks, padded to one length; a padded example has weight 0."""

    x: Tensor
    """[U, S, W] float32, features in stored form."""
    y: Tensor
    """[U, S] float32: the class index, or the value of a regression."""
    weight: Tensor
    """[U, S] float32; the weights of a task sum to 1, or to 0 where it has no examples."""


class Episodes(NamedTuple):
    """U episodes: what each task adapts on, and what the result is judged on."""

    support: Batch
    query: Batch


BASE, RECENT, THETA, ADAPTED, SERVED = range(5)
"""Places of the predictors in an event's predictions and losses: four experts, and what was served of them."""

PREDICTORS = ("base", "recent", "theta", "adapted", "served")
"""Their names, in that order."""


@dataclass(frozen=True)
class Meta:
    """One version of theta. Version 0 means that there is none yet and the base rate is served."""

    version: int
    params: Params
    prior: tuple[float, ...] = (0.2,) * 5
    """Of a lane of the hedge over base, recent, theta, adapted and their shared mixture; it sums to 1."""
    calibration: tuple[float, ...] = ()
    """Scale and biases of what the model puts out, unadapted and adapted (`engine.outer.calibration`); or none."""

    def __post_init__(self) -> None:
        if self.version < 0:
            raise EngineError(f"Meta.version must be 0 (no theta yet) or more, got {self.version}")
        if len(self.prior) != len(PREDICTORS) or not all(0 < share <= 1 for share in self.prior):
            raise EngineError(
                f"Meta.prior must be {len(PREDICTORS)} numbers above 0 that sum to 1, got {self.prior}; "
                "leave it out for equal ones"
            )


@dataclass(frozen=True)
class Outcomes:
    """What became of the N events of a batch, aligned with it."""

    code: UInt8
    """[N] `Outcome`."""
    prediction: Float32
    """[N, 5, C] of `PREDICTORS`: made now for an observation; made then for a scored label, and for an observation
    that comes again, as long as it is pending. NaN elsewhere: of one that was resolved, it is not kept."""
    loss: Float64
    """[N, 5] of the same, for scored labels; NaN elsewhere."""
    shared_loss: Float64
    """[N] loss of the mixture by shared weights, for scored labels; NaN elsewhere."""
    version: Int64
    """[N] version of theta behind the prediction; 0 elsewhere."""
    seen: Int64
    """[N] how many labels the task had learned from when the prediction was made."""
    waited_s: Float64
    """[N] event time from prediction to label, for scored labels."""
    weight: Float64
    """[N] the adapted model's share in a prediction served now; NaN elsewhere."""
    alarm: Bool
    """[N] whether this label raised the drift alarm."""
    adapted: Bool
    """[N] whether this label made the task adapt."""
    expired: Int64
    """[N] how many pending observations of the task this event found expired or pushed out."""
    learned: Int64
    """[N] the task's label count with this label, where it was learned from; 0 elsewhere."""
    learned_x: Float32
    """[N, W] the features that came with it, history included."""


@dataclass(frozen=True)
class Episode:
    """What one adaptation leaves for the outer loop: the support set as it was, and what came after."""

    row: int
    labels: int
    """The task's label count; with the task's id it identifies the episode."""
    event: int
    """Index in the batch of the label that ended it."""
    support_x: Float32
    support_y: Float32
    support_weight: Float32
    query_x: Float32
    query_y: Float32

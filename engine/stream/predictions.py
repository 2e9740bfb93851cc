"""Predictions out of a model's outputs: calibrated, as probabilities or a number of the range, and finite."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from engine.compiled import compiled, compiled_as, copy, scalars
from engine.kernels.row_loop import ROOM, read_row, row_outputs
from engine.kernels.row_theta import ROW_THETA, RowTheta
from engine.located import LOCATED, Located, numbers_of
from engine.stream import history
from engine.stream.layout import columns_at
from engine.stream.scan_arrays import EVENTS_LAYOUT, OBSERVATION, RULES_LAYOUT, Events, Rules
from engine.stream.support import ROW
from engine.types import ADAPTED, THETA, Float32, Int64


@compiled
def calibrated(z: Any, calibration: Any, k: int) -> float:
    """Output k by scale and biases [1 + C] or scale alone [1]; as it is where there are none [0]."""
    if len(calibration) == 0:
        return np.float64(z[k])
    scaled = np.float64(z[k]) * np.float64(calibration[0])
    return scaled + np.float64(calibration[1 + k]) if len(calibration) > 1 else scaled


@compiled
def write_prediction(z: Any, calibration: Any, r: Any, into: Any) -> bool:
    """Write what outputs z [C] predict `into` [C], as `Target.predict` says; returns whether they are numbers."""
    if r.regression:
        value = calibrated(z, calibration, 0)
        into[0] = r.low if value < r.low else r.high if value > r.high else value
        return not math.isnan(value)
    top, total = -math.inf, 0.0
    for k in range(r.named):
        top = max(top, calibrated(z, calibration, k))
    for k in range(r.named):
        total += math.exp(calibrated(z, calibration, k) - top)
    for k in range(r.outputs):
        into[k] = r.floor
        if k < r.named:
            share = math.exp(calibrated(z, calibration, k) - top) / total
            into[k] = share * (1.0 - r.named * r.floor) + r.floor
    return not math.isnan(total)


@compiled
def know_nothing(r: Any, into: Any) -> None:
    """Write the middle of the range, or every class named alike."""
    if r.regression:
        into[0] = (r.low + r.high) / 2
        return
    for k in range(r.outputs):
        into[k] = (1.0 / r.named) * (1.0 - r.named * r.floor) + r.floor if k < r.named else r.floor


@compiled
def take(z: Any, calibration: Any, r: Any, expert: int, prediction: Any) -> int:
    """Take outputs z [C] as an expert's prediction of an event, into `prediction` [5, C].

    What is not finite knows nothing where it is theta's, and is theta's where it is a task's; returns how many.
    """
    into = prediction[expert]
    if write_prediction(z, calibration, r, into):
        return 0
    if expert == THETA:
        know_nothing(r, into)
    else:
        copy(prediction[THETA], into)
    return 1


@compiled_as("float32[,]", "float32[]", RULES_LAYOUT, "int64[]", "int64", "float32[,,]")
def write_predictions(
    outputs: Float32, calibration: Float32, r: Rules, index: Int64, expert: int, prediction: Float32
) -> int:
    """Take outputs [n, C] as an expert's predictions of events `index` [n]; returns how many were not finite."""
    broken = 0
    for i in range(len(index)):
        broken += take(outputs[i], calibration, r, expert, prediction[index[i]])
    return broken


class Asked(NamedTuple):
    """What of a fold is to be predicted."""

    index: Any
    """Which events, in the order in which they are folded."""
    cursor: Any
    """[U] of task u they are those of the fold's order[cursor:stop]."""
    stop: Any
    """[U]"""
    serves: Any
    """[N] which of the adaptations `found` ahead serves each event, or ROW; [0] where none was."""
    found: Any
    """[A, F] their fast parameters."""
    again: bool
    """Whether histories are written already, and theta's predictions; adapted models have others now."""


ASKED = scalars(Asked, [*["int64[]"] * 4, "float32[,]", "boolean"])


class Answers(NamedTuple):
    """One version of theta, as `predict` reads it."""

    theta: RowTheta
    unadapted: Any
    """[F] theta's own values."""
    moves: bool
    """Whether adapted models are others than theta."""
    calibration: Any


ANSWERS = scalars(Answers, [ROW_THETA, "float32[]", "boolean", "float32[]"])


@compiled
def write_history(c: Any, e: Any, n: int, r: Any, asked: Any) -> None:
    """Write the history of an event that is all that its task has to fold; of others look-ahead did."""
    u = e.row[n]
    if r.writes_history and not asked.again and e.has_x[n] and asked.stop[u] - asked.cursor[u] == 1:
        history.write(c, u, e.x[n], e.time_s[n], r)


@compiled_as(LOCATED, EVENTS_LAYOUT, RULES_LAYOUT, ASKED, ANSWERS, "float32[,]", "float32[,,]")
def predict(
    located: Located, e: Events, r: Rules, asked: Asked, answers: Answers, room: Float32, prediction: Float32
) -> int:
    """Predict observations row by row, into `prediction` [N, 5, C]; returns how many were not finite.

    Writes the history of each event that is all that its task has to fold. `room` is [ROOM + 1, widest].
    """
    c, broken, made = columns_at(located), 0, room[ROOM, : r.outputs]
    for i in range(len(asked.index)):
        n = asked.index[i]
        u = e.row[n]
        write_history(c, e, n, r, asked)
        if e.kind[n] != OBSERVATION:
            continue
        read_row(answers.theta, e.x[n], room)
        for expert in range(ADAPTED if asked.again else THETA, ADAPTED + 1):
            if expert == ADAPTED and not answers.moves:
                copy(prediction[n, THETA], prediction[n, ADAPTED])
                continue
            own = answers.unadapted
            if expert == ADAPTED:
                ahead = asked.serves[n] if len(asked.serves) > 0 else ROW
                own = numbers_of(c.fast, u) if ahead == ROW else asked.found[ahead]
            row_outputs(answers.theta, own, e.x[n], room, made)
            broken += take(made, answers.calibration, r, expert, prediction[n])
    return broken


@compiled_as(LOCATED, EVENTS_LAYOUT, RULES_LAYOUT, ASKED)
def write_histories(located: Located, e: Events, r: Rules, asked: Asked) -> None:
    """Write the history of each event that is all that its task has to fold."""
    c = columns_at(located)
    for i in range(len(asked.index)):
        write_history(c, e, asked.index[i], r, asked)

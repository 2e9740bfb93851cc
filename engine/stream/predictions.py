"""Predictions out of a model's outputs: calibrated, as probabilities or a number of the range, and finite."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from engine.compiled import compiled, compiled_as, copy
from engine.stream.scan_arrays import RULES_LAYOUT, Rules
from engine.types import THETA, Float32, Int64


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


@compiled_as("float32[,]", "float32[]", RULES_LAYOUT, "int64[]", "int64", "float32[,,]")
def write_predictions(
    outputs: Float32, calibration: Float32, r: Rules, index: Int64, expert: int, prediction: Float32
) -> int:
    """Write outputs [n, C] as an expert's predictions of events `index` [n] into `prediction` [N, 5, C].

    What is not finite knows nothing where it is theta's, and is theta's where it is a task's; returns how many.
    """
    broken = 0
    for i in range(len(index)):
        into = prediction[index[i], expert]
        if write_prediction(outputs[i], calibration, r, into):
            continue
        broken += 1
        if expert == THETA:
            know_nothing(r, into)
        else:
            copy(prediction[index[i], THETA], into)
    return broken

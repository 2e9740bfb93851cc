"""What a drift detector keeps."""

from __future__ import annotations

import numpy as np

from engine.checks.promises import require
from engine.detectors.detectors import Compiled, Detector, step
from engine.types import Float64

LOSSES = 200
"""Labels that a checked detector is fed."""


def a_detector_answers_one_alarm_a_task(detector: Detector) -> None:
    """There is a width, and `update` returns booleans [U]."""
    require(
        isinstance(detector.width, int) and detector.width > 0,
        f"the detector's width is {detector.width!r}",
        "let it be how many numbers of state a task needs, at least 1",
    )
    alarms = np.asarray(detector.update(np.zeros((3, detector.width)), np.ones(3)))
    require(
        alarms.shape == (3,) and alarms.dtype == np.bool_,
        f"for 3 tasks `update` returned {alarms.dtype} {alarms.shape}",
        "return one boolean a task",
    )


def the_scan_raises_the_alarms_of_update(detector: Detector) -> None:
    """A detector that the compiled scan runs does there what its `update` does."""
    if not isinstance(detector, Compiled):
        return
    losses, state = rising_losses(seed=6), np.zeros(detector.width)
    require(
        [step(*detector.in_scan, state, loss) for loss in losses] == alarms_of(detector, losses),
        "`update` raised other alarms than the compiled scan, which does not call it",
        "derive a detector of your own from none of ours",
    )


def the_same_losses_raise_the_same_alarms(detector: Detector) -> None:
    """From a state of zeros, a detector does the same every time."""
    losses = rising_losses(seed=0)
    require(
        alarms_of(detector, losses) == alarms_of(detector, losses),
        "the same losses raised other alarms the second time",
        "keep nothing in the detector: all that it knows must be in the state, and zeros must be fresh",
    )


def the_state_is_all_that_a_detector_knows(detector: Detector) -> None:
    """A state that was stored in between goes on as if it had not been."""
    losses, half = rising_losses(seed=1), LOSSES // 2
    state = np.zeros((1, detector.width))
    for loss in losses[:half]:
        detector.update(state, np.array([loss]))
    stored = state.copy()
    expected = alarms_of(detector, losses[half:], state)
    alarms_of(detector, rising_losses(seed=2))
    require(
        alarms_of(detector, losses[half:], stored) == expected,
        "a stored state, fed on later, raised other alarms than the state it was copied from",
        "keep in the state [width] all that the next `update` depends on",
    )


def tasks_do_not_share_a_detector(detector: Detector) -> None:
    """What one task's losses do does not depend on whose losses come beside them."""
    pair = np.stack([rising_losses(seed=3), rising_losses(seed=4)], axis=1)
    state = np.zeros((2, detector.width))
    together = [detector.update(state, losses).tolist() for losses in pair]
    alone = zip(*(alarms_of(detector, pair[:, u]) for u in (0, 1)), strict=True)
    require(
        together == [list(alarms) for alarms in alone],
        "a task raised other alarms beside another task than alone",
        "let `update` change each state [u] by losses [u] only",
    )


def a_detectors_state_stays_finite(detector: Detector) -> None:
    """A state that holds NaN would never alarm again."""
    state = np.zeros((1, detector.width))
    for loss in (*rising_losses(seed=5), 0.0, 1e9, 0.0):
        detector.update(state, np.array([loss]))
    require(
        bool(np.isfinite(state).all()),
        "finite losses left a state that is not finite",
        "start from zeros without dividing by them",
    )


DETECTOR_CHECKS = (
    a_detector_answers_one_alarm_a_task,
    the_same_losses_raise_the_same_alarms,
    the_state_is_all_that_a_detector_knows,
    tasks_do_not_share_a_detector,
    a_detectors_state_stays_finite,
    the_scan_raises_the_alarms_of_update,
)


def rising_losses(seed: int) -> Float64:
    """Losses that rise halfway, so that a detector has something to find."""
    rise = np.where(np.arange(LOSSES) < LOSSES // 2, 0.2, 5.0)
    return np.asarray(rise + np.random.default_rng(seed).exponential(0.1, LOSSES), np.float64)


def alarms_of(detector: Detector, losses: Float64, state: Float64 | None = None) -> list[bool]:
    """Alarms of one task, from a fresh state unless one is given."""
    state = np.zeros((1, detector.width)) if state is None else state
    return [bool(detector.update(state, np.array([loss]))[0]) for loss in losses]

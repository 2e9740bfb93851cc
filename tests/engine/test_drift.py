"""Detectors: river's alarms, bit for bit, from a few numbers a task."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import drift as river

from engine.detectors.detectors import Detector, Never, PageHinkley, Periodic
from engine.detectors.river import River
from engine.types import EngineError

Mode = Literal["up", "down", "both"]
MODES: list[Mode] = ["up", "down", "both"]


def stream(seed: int, length: int) -> np.ndarray:
    """Losses whose mean jumps up and down at random times."""
    rng = np.random.default_rng(seed)
    levels = rng.uniform(0, 3, size=1 + length // 100)
    return np.abs(rng.normal(np.repeat(levels, 100)[:length], rng.uniform(0.05, 1)))


def alarms_of(detector: Detector, losses: np.ndarray, tasks: int = 1) -> np.ndarray:
    """Alarms [N, U] of one stream fed to U tasks at once."""
    state = np.zeros((tasks, detector.width))
    return np.array([detector.update(state, np.full(tasks, loss)) for loss in losses])


def river_alarms(detector: Any, losses: np.ndarray) -> np.ndarray:
    alarms = []
    for loss in losses.tolist():
        detector.update(loss)
        alarms.append(detector.drift_detected)
    return np.array(alarms)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "options", [(30, 0.005, 50.0, 0.9999), (5, 0.0, 2.0, 0.99), (1, 0.1, 0.5, 1.0), (3, -0.1, 4.0, 0.9)]
)
def test_page_hinkley_alarms_exactly_where_river_does(
    mode: Mode, options: tuple[int, float, float, float]
) -> None:
    alarms = 0
    for seed in range(4):
        losses = stream(seed, 3000)
        ours = alarms_of(PageHinkley(*options, mode=mode), losses)[:, 0]
        theirs = river_alarms(river.PageHinkley(*options, mode=mode), losses)
        assert ours.tolist() == theirs.tolist()
        alarms += ours.sum()
    assert alarms > 3


@settings(max_examples=60)
@given(st.lists(st.floats(-100, 100), max_size=60), st.sampled_from(MODES), st.integers(1, 10))
def test_page_hinkley_equals_river_on_any_losses(losses: list[float], mode: Mode, min_instances: int) -> None:
    options = (min_instances, 0.005, 1.0, 0.999)
    ours = alarms_of(PageHinkley(*options, mode=mode), np.array(losses))
    theirs = river_alarms(river.PageHinkley(*options, mode=mode), np.array(losses))
    assert ours.ravel().tolist() == theirs.tolist()


def test_page_hinkley_keeps_the_bits_of_rivers_numbers() -> None:
    detector, theirs = PageHinkley(threshold=1e9), river.PageHinkley(threshold=1e9, mode="up")
    state = np.zeros((1, detector.width))
    for loss in stream(9, 2000):
        detector.update(state, np.array([loss]))
        theirs.update(float(loss))
    sums = (theirs._sum_increase, theirs._sum_decrease, theirs._min_increase, theirs._max_decrease)
    assert state[0].tolist() == [2000.0, theirs._x_mean.get(), *sums]


def test_page_hinkley_up_is_silent_while_a_task_learns() -> None:
    falling = 1.0 + np.exp(-np.arange(3000) / 100)
    assert not alarms_of(PageHinkley(threshold=5.0), falling).any()
    assert alarms_of(PageHinkley(threshold=5.0, mode="both"), falling).any()


@pytest.mark.parametrize("detector", [PageHinkley(3, 0.0, 0.5), Periodic(4), River("ADWIN", window=64)])
def test_tasks_do_not_share_state(detector: PageHinkley | Periodic | River) -> None:
    first, second = stream(1, 300), stream(2, 300)
    state, together = np.zeros((2, detector.width)), []
    for pair in np.stack([first, second], axis=1):
        together.append(detector.update(state, pair))
    alone = np.concatenate([alarms_of(detector, first), alarms_of(detector, second)], axis=1)
    assert np.array(together).tolist() == alone.tolist()


@pytest.mark.parametrize(
    "detector",
    [PageHinkley(3, 0.0, 0.5), Periodic(4), River("PageHinkley", (("threshold", 0.5), ("min_instances", 3)))],
)
def test_after_an_alarm_the_state_is_that_of_a_task_never_seen(
    detector: PageHinkley | Periodic | River,
) -> None:
    losses, state = stream(3, 400), np.zeros((1, detector.width))
    alarms = [n for n, loss in enumerate(losses) if detector.update(state, np.array([loss]))[0]]
    assert alarms
    state = np.zeros((1, detector.width))
    for loss in losses[: alarms[0] + 1]:
        detector.update(state, np.array([loss]))
    assert not state.any()


def test_periodic_alarms_at_every_nth_label() -> None:
    assert (1 + np.flatnonzero(alarms_of(Periodic(7), np.ones(30)))).tolist() == [7, 14, 21, 28]


def test_never_never_alarms() -> None:
    assert not alarms_of(Never(), stream(0, 500) * 1e6).any()


@pytest.mark.parametrize(
    ("name", "options"),
    [("ADWIN", {"delta": 0.05}), ("PageHinkley", {"threshold": 3.0, "mode": "up"}), ("KSWIN", {"seed": 1})],
)
def test_a_river_detector_alarms_where_river_does_within_its_window(
    name: str, options: dict[str, float] | dict[str, object] | dict[str, int]
) -> None:
    losses = np.concatenate([stream(4, 100) * 0.1, 5 + stream(5, 100) * 0.1])
    ours = alarms_of(River(name, tuple(options.items()), window=256), losses)[:, 0]
    theirs = river_alarms(getattr(river, name)(**options), losses)
    first = int(np.argmax(theirs))
    assert theirs.any()
    assert ours[: first + 1].tolist() == theirs[: first + 1].tolist()


def test_page_hinkley_of_river_equals_ours_between_alarms_and_after() -> None:
    options = (("min_instances", 5), ("delta", 0.0), ("threshold", 2.0), ("alpha", 0.99), ("mode", "up"))
    losses = stream(6, 600)
    theirs = alarms_of(River("PageHinkley", options, window=600), losses)
    assert theirs.any()
    assert theirs.tolist() == alarms_of(PageHinkley(5, 0.0, 2.0, 0.99), losses).tolist()


def test_a_river_detector_forgets_what_lies_before_its_window() -> None:
    detector, state = River("ADWIN", window=3), np.zeros((1, 4))
    for loss in (1.0, 2.0, 3.0, 4.0, 5.0):
        detector.update(state, np.array([loss]))
    assert state[0].tolist() == [3, 3, 4, 5]


@pytest.mark.parametrize("name", ["Nonsense", "binary", "retrain", "DriftRetrainingClassifier", "__name__"])
def test_what_is_no_detector_of_river_is_refused_where_it_is_made(name: str) -> None:
    with pytest.raises(
        EngineError, match=f"detector '{name}' of river is none; name one of ADWIN, KSWIN, Page"
    ):
        River(name)


@pytest.mark.parametrize("name", ["DDM", "EDDM", "FHDDM", "HDDMA", "HDDMW"])
def test_a_detector_that_is_fed_hits_and_misses_is_refused_where_losses_are_fed(name: str) -> None:
    with pytest.raises(
        EngineError, match=f"'{name}' of river is fed whether a prediction was right, and here"
    ):
        River(name)


@pytest.mark.parametrize("name", ["KSWIN", "DummyDriftDetector"])
def test_a_detector_that_draws_random_numbers_needs_a_seed(name: str) -> None:
    with pytest.raises(EngineError, match="a replay would draw others; give it a seed among its options"):
        River(name)
    assert not alarms_of(River(name, (("seed", 1),)), stream(0, 50)).any()


def test_options_that_a_detector_does_not_take_are_refused_where_it_is_made() -> None:
    with pytest.raises(EngineError, match=r"'ADWIN' of river does not take .*; it takes delta, clock"):
        River("ADWIN", (("treshold", 1.0),))
    with pytest.raises(EngineError, match="window must be at least 1 loss, got 0"):
        River("ADWIN", window=0)


@pytest.mark.parametrize("count", [4.0, -1.0, np.nan])
def test_a_state_that_counts_more_losses_than_it_has_room_for_is_refused(count: float) -> None:
    with pytest.raises(EngineError, match=r"counts .* losses of at most 3; run `reptide rebuild`"):
        River("ADWIN", window=3).update(np.array([[count, 0.0, 0.0, 0.0]]), np.ones(1))


@pytest.mark.parametrize("name", ["ADWIN", "PageHinkley", "NoDrift"])
def test_what_river_says_of_a_detector_that_is_taken_does_not_depend_on_the_run(name: str) -> None:
    losses = stream(7, 200)
    assert (alarms_of(River(name), losses) == alarms_of(River(name), losses)).all()


def test_a_mode_that_does_not_exist_is_refused() -> None:
    with pytest.raises(EngineError, match=r"both.*down.*up.*'sideways'"):
        PageHinkley(mode="sideways")  # type: ignore[arg-type]


@pytest.mark.parametrize("detector", [PageHinkley(), Periodic(), Never(), River("ADWIN")])
def test_what_the_spec_may_name_is_a_detector(detector: PageHinkley | Periodic | Never | River) -> None:
    assert isinstance(detector, Detector)

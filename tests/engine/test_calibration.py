"""Calibration: what is too sure is drawn back, what is right stays, and nothing a label says breaks it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from engine.outer.calibration import MOST_BIASES, SMALLEST, Calibration, calibrated, refined, uncalibrated
from engine.targets import Classification, Regression
from tests.engine.driving import SPECS, drive, label, observation, theta

TWO, VALUE = Classification((0, 1)), Regression(0.0, 10.0)
BATCHES, LABELS = 20, 256


def drawn(scale: float, shift: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Outputs whose log odds must be multiplied by a scale, and then shifted, to be the truth; and labels."""
    generator = torch.Generator().manual_seed(seed)
    odds = 2 * torch.randn(BATCHES, LABELS, generator=generator)
    y = torch.rand(BATCHES, LABELS, generator=generator) < torch.sigmoid(scale * odds + shift)
    return torch.stack([torch.zeros_like(odds), odds], 2), y.float()


def fitted(target: Classification | Regression, z: Tensor, y: Tensor) -> Calibration:
    found = uncalibrated(target)
    for outputs, labels in zip(z, y, strict=True):
        found = refined(found, target, outputs, labels)
    return found


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.4, -1.0), (1.8, 0.5)])
def test_scale_and_shift_are_found(scale: float, shift: float) -> None:
    found = fitted(TWO, *drawn(scale, shift)).values
    assert found[0].item() == pytest.approx(scale, rel=0.12)
    assert (found[2] - found[1]).item() == pytest.approx(shift, abs=0.15)


def test_labels_that_come_are_lost_less_by_than_without() -> None:
    z, y = drawn(0.4, -1.0)
    found = uncalibrated(TWO)
    for turn in range(BATCHES):
        before = torch.nn.functional.cross_entropy(z[turn], y[turn].long())
        after = torch.nn.functional.cross_entropy(calibrated(z[turn], found.values.float()), y[turn].long())
        assert after <= before if turn else after == before
        found = refined(found, TWO, z[turn], y[turn])


def test_of_a_regression_scale_and_bias_are_found() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(BATCHES, LABELS, 1, generator=generator)
    y = (0.5 * z[..., 0] + 0.3) + 0.1 * torch.randn(BATCHES, LABELS, generator=generator)
    assert fitted(VALUE, z, y).values.tolist() == pytest.approx([0.5, 0.3], abs=0.02)


def test_it_is_in_use_once_it_pays() -> None:
    z, y = drawn(0.4, -1.0)
    assert uncalibrated(TWO).in_use.tolist() == [1.0, 0.0, 0.0]
    assert fitted(TWO, z[:1], y[:1]).in_use.tolist() == [1.0, 0.0, 0.0]  # fitted to, and not judged yet
    assert torch.equal(fitted(TWO, z, y).in_use, fitted(TWO, z, y).values)


def test_where_each_batch_is_of_another_task_it_is_not_in_use() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(BATCHES, LABELS, 1, generator=generator)
    own = torch.randn(BATCHES, 1, generator=generator)  # a mean for each, which the next knows nothing of
    found = fitted(VALUE, z, z[..., 0] + own)
    assert abs(found.values[1]) > 0.1
    assert found.in_use.tolist() == [1.0, 0.0]


def test_what_fits_stays() -> None:
    z, _ = drawn(1.0, 0.0)
    same = torch.zeros(BATCHES, LABELS, 1)
    assert fitted(VALUE, same, same[..., 0]).values.tolist() == [1.0, 0.0]
    assert torch.equal(calibrated(z, uncalibrated(TWO).values.float()), z)


def test_of_many_classes_the_scale_alone_is_fitted() -> None:
    many = Classification(tuple(range(MOST_BIASES + 1)))
    assert len(uncalibrated(many).values) == 1
    z = 3 * torch.randn(BATCHES, LABELS, many.outputs, generator=torch.Generator().manual_seed(0))
    drawn = torch.distributions.Categorical(logits=z / 2)
    torch.manual_seed(0)
    assert fitted(many, z, drawn.sample().float()).values.item() == pytest.approx(0.5, rel=0.1)


def test_room_for_more_classes_is_not_looked_at() -> None:
    roomy = Classification(("a", "b"), reserve=4)
    z, y = drawn(0.4, -1.0)
    found = fitted(roomy, torch.nn.functional.pad(z, (0, 2), value=50.0), y).values
    torch.testing.assert_close(found[:3], fitted(TWO, z, y).values)
    assert found[3:].tolist() == [0.0, 0.0]


def test_the_higher_of_two_predictions_stays_the_higher() -> None:
    z, y = drawn(-1.0, 0.0)  # upside down
    assert fitted(TWO, z, y).values[0] >= SMALLEST


OUTPUTS = st.floats(width=32)


@given(st.lists(st.tuples(OUTPUTS, OUTPUTS, st.sampled_from([0.0, 1.0, math.nan])), max_size=6))
def test_whatever_is_said_it_stays_finite(said: list[Any]) -> None:
    rows = torch.tensor(said).view(-1, 3)
    for target in (TWO, VALUE):
        found = refined(uncalibrated(target), target, rows[:, : target.outputs], rows[:, 2])
        assert bool(found.values.isfinite().all())
        assert found.values[0] >= SMALLEST


# In a fold


@pytest.mark.parametrize("name", ["balanced", "regression"])
def test_what_is_served_is_calibrated_unadapted_and_adapted_alike(name: str) -> None:
    target, plain, driven = SPECS[name].problem.target, theta(name, 1), drive(name)
    labels = enumerate([1.0, 0, 1, 1, 0, 1, 1, 1])
    driven.fold([e for n, y in labels for e in (observation(n), label(n, y))], plain)
    x = np.array([[0.3, -0.7]], np.float32)
    values = (0.5, *(0.25 * n for n in range(target.outputs)))
    before = driven.engine.predict(driven.table, x, plain, driven.table.rows["clock_s"])
    after = driven.engine.predict(
        driven.table, x, replace(plain, calibration=values), driven.table.rows["clock_s"]
    )
    assert not np.allclose(before.theta, before.adapted)
    for was, now in ((before.theta, after.theta), (before.adapted, after.adapted)):
        expected = torch.from_numpy(was if isinstance(target, Regression) else np.log(was)) * 0.5
        np.testing.assert_allclose(now, target.predict(expected + torch.tensor(values[1:])), rtol=1e-4)
    np.testing.assert_array_equal(after.base, before.base)

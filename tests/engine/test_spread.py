"""What has been noted and fades: the mean and error of weights written out, and how it decides on a step size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.intervals import faded_mean, noted
from engine.outer.step_size import SIZES, chosen

MEMORY = 3.0


def test_the_mean_and_its_error_are_those_of_values_that_weigh_less_the_older_they_are() -> None:
    batches = [torch.randn(2, n, generator=torch.Generator().manual_seed(n)).double() for n in (4, 1, 6)]
    total = torch.zeros(3, 2, dtype=torch.float64)
    for batch in batches:
        total = noted(total, batch, MEMORY)
    age = np.repeat([1 + 6, 6, 0], [4, 1, 6])  # values that came in later batches than its own
    weight, values = 2.0 ** (-age / MEMORY), torch.cat(batches, dim=1).numpy()
    expected = (weight * values).sum(1) / weight.sum()
    spread = (weight * values**2).sum(1) / weight.sum() - expected**2
    mean, error = faded_mean(total)
    np.testing.assert_allclose(mean, expected)
    np.testing.assert_allclose(error, np.sqrt(spread / weight.sum()))


def test_of_nothing_the_mean_is_zero_and_not_in_doubt() -> None:
    assert [float(value) for value in faded_mean(torch.zeros(3))] == [0.0, 0.0]


def costs(of_small: list[float]) -> np.ndarray:
    """Losses [S, N] of episodes that the smallest step changes by so much, and any larger one ruins."""
    losses = np.full((len(SIZES), len(of_small)), np.inf)
    losses[0], losses[1] = 1.0, 1.0 + np.array(of_small)
    return losses


@pytest.mark.parametrize(
    ("of_small", "size"),
    [
        ([-0.1, -0.2, -0.1], SIZES[1]),
        ([-0.1, -0.2, 0.4], 0.0),
        ([-1.0, 0.6, 0.3], 0.0),  # better in the mean, but not by a standard error
        ([0.1], 0.0),
    ],
)
def test_a_step_size_is_taken_where_it_beats_none_by_a_standard_error(
    of_small: list[float], size: float
) -> None:
    assert chosen(None, costs(of_small))[0] == size


def test_a_choice_follows_new_episodes_within_a_few_hundred() -> None:
    size, before = chosen(None, costs([-0.5, -0.4] * 200))
    assert size == SIZES[1]
    size, _ = chosen(before, costs([0.3, 0.2] * 200))
    assert size == 0.0

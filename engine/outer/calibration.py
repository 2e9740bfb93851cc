"""Calibration of theta's outputs: a scale, and a bias of each, fitted to labels before theta is trained on them.

    served outputs = scale * outputs + bias

What a network was trained on it is surer of than of what comes next (Guo et al. 2017, arXiv:1706.04599), and most so
where labels are rare or late. Scale and bias (Platt 1999) are fitted to what theta in force says of labels that are
new to it: one Newton step for each batch of them, with what earlier batches say as the prior, fading. They belong to
theta's version, and shift no gradient: theta is trained, and adapts, by its own outputs. Where the labels that come
are of other tasks than those before, fitting to the last ones can do harm: so outputs stay as they are until the
calibration has lost less on labels to come than they did, by more than a standard error.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from engine.intervals import faded_mean, noted
from engine.targets import Classification, Regression

MOST_BIASES = 32
"""With more classes than this the scale alone is fitted: the cost grows with the square."""

MEMORY = 16_384.0
"""In labels: how far back the fit looks, as a half-life."""

PRIOR = 20.0
"""How much information says, before any label, that outputs are right as they are."""

SMALLEST = 0.1
"""Of the scale: which of two predictions is the higher stays as it is."""

HALVINGS = 6
"""Of a step that does not lower the loss."""


class Calibration(NamedTuple):
    """Scale and biases, and how well they are known."""

    values: Tensor
    """[1 + C] the scale, then the biases; [1] of many classes. float64."""
    information: Tensor
    """[P, P] of the P values: the second derivative of the loss of all labels so far, the latest counting most."""
    cost: Tensor
    """[3] of labels, before they were fitted to: their number, and sum and sum of squares of what they cost more."""

    @property
    def in_use(self) -> Tensor:
        """The values if they pay, else those that change nothing."""
        mean, error = faded_mean(self.cost)
        return self.values if bool(mean + error < 0) else _unchanging(len(self.values))


def uncalibrated(target: Classification | Regression) -> Calibration:
    """Outputs as they are."""
    values = _unchanging(1 + (target.outputs if target.outputs <= MOST_BIASES else 0))
    return Calibration(values, PRIOR * torch.eye(len(values), dtype=torch.float64), values.new_zeros(3))


def calibrated(outputs: Tensor, values: Tensor) -> Tensor:
    """Outputs [..., C] by values [1 + C] or [1]."""
    scaled = outputs * values[0]
    return scaled + values[1:] if len(values) > 1 else scaled


def refined(
    before: Calibration, target: Classification | Regression, outputs: Tensor, y: Tensor
) -> Calibration:
    """Take in labels y [N] that outputs [N, C] were not trained on; both standardised, of a regression."""
    sound = outputs.isfinite().all(1) & y.isfinite()
    if not bool(sound.all()):
        outputs, y = outputs[sound], y[sound]
    if not len(y):
        return before
    z, y = outputs.double(), y.double() if isinstance(target, Regression) else y.long()
    said = calibrated(z, before.values)
    losses = _losses(said, target, y)
    cost = noted(before.cost, losses - _losses(z, target, y), MEMORY)
    faded = before.information * 2.0 ** (-len(y) / MEMORY)
    slope, curvature = _derivatives(said, len(before.values), target, z, y)
    information = faded + curvature
    step = -torch.linalg.solve(information + torch.eye(len(slope), dtype=slope.dtype), slope)
    lost = losses.sum()
    for halved in range(HALVINGS):
        part = step * 0.5**halved
        values = before.values + part
        values[0].clamp_(min=SMALLEST)
        if bool(_losses(calibrated(z, values), target, y).sum() + part @ faded @ part / 2 <= lost):
            return Calibration(values, information, cost)
    return Calibration(before.values, information, cost)


def _unchanging(count: int) -> Tensor:
    """A scale of 1, and biases of 0."""
    return torch.eye(count, dtype=torch.float64)[0]


def _losses(said: Tensor, target: Classification | Regression, y: Tensor) -> Tensor:
    """Negative log likelihood of each label; of a regression that of a normal distribution of deviation 1."""
    if isinstance(target, Regression):
        return (said[:, 0] - y).square() / 2
    named = said[:, : len(target.classes)].T  # classes first, as softmax takes a fifth of the time
    return torch.nn.functional.cross_entropy(named[None], y[None], reduction="none")[0]


def _derivatives(
    said: Tensor, values: int, target: Classification | Regression, z: Tensor, y: Tensor
) -> tuple[Tensor, Tensor]:
    """First and second derivative of the sum of losses by P values; d outputs / d values is J: z beside ones."""
    biases = torch.eye(z.shape[1], dtype=z.dtype)[:, : values - 1]
    j = torch.cat([z.unsqueeze(2), biases.expand(len(z), -1, -1)], 2)
    if isinstance(target, Regression):
        return torch.einsum("ncp,nc->p", j, said - y.unsqueeze(1)), torch.einsum("ncp,ncq->pq", j, j)
    j = j[:, : len(target.classes)]
    share = torch.softmax(said[:, : len(target.classes)].T, 0).T
    error = share - torch.nn.functional.one_hot(y, share.shape[1])
    weighed = j * share.unsqueeze(2)
    mean = weighed.sum(1)
    second = torch.einsum("ncp,ncq->pq", weighed, j) - mean.T @ mean
    return torch.einsum("ncp,nc->p", j, error), second

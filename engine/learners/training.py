"""What a kernel (`engine.learners.base.Kernel`) may do beside adapting: train theta in place."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from engine.types import Batch, Episodes, Params

FIRST, SECOND = "exp_avg", "exp_avg_sq"
"""What torch calls Adam's moments."""

TINY = 1e-8
"""What keeps Adam and Adagrad from dividing by nothing."""


class Trained(NamedTuple):
    """Theta in training, by name, and what its optimizers keep."""

    params: Params
    """Every parameter and buffer."""
    squares: Params
    """Adagrad's sums of squares, of the tables of buckets and the linear part."""
    means: Params
    """Means over the last steps, of all else and the linear part; empty before the first step."""
    moments: Params
    """Adam's means of gradients and of their squares, as "exp_avg:name" and "exp_avg_sq:name"; or empty."""
    taken: int
    """Adam's steps."""


class Slope(NamedTuple):
    """What one lesson says; losses are means."""

    loss: float
    """Of its labels, under theta unadapted."""
    before: float
    """Of its episodes' query sets under theta unadapted; NaN where none has one."""
    after: float
    """Of the same after adaptation."""
    norm: float
    """Global norm of the gradient."""


class Pace(NamedTuple):
    """How far one step goes."""

    scale: float
    """Of the gradient, which is clipped."""
    labels: float
    """By how much more of it tables are moved."""
    rate: float
    """Adam's,"""
    linear: float
    """Adagrad's of the linear part,"""
    tables: float
    """and of tables."""
    decay: float
    """Weight decay of what Adam moves,"""
    first: float
    """and its betas."""
    second: float
    newest: float
    """What the newest values weigh in the means."""


class InTraining(Protocol):
    """Theta that moves in place; by first-order backpropagation through adaptation, as `engine.outer.online` says."""

    def slope(self, labels: Batch, episodes: Episodes | None, share: float) -> Slope:
        """Find the gradient of the mean loss of labels, and of `share` of that of episodes after adaptation.

        `move` or `pass_over` is to be called next.
        """
        ...

    def move(self, pace: Pace) -> None:
        """Take one step along it."""
        ...

    def pass_over(self) -> None:
        """Take none."""
        ...

    def trained(self) -> Trained:
        """Where it ended: it is not moved any more, since its tables are not copied."""
        ...

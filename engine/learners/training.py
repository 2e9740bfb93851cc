"""What a kernel (`engine.learners.base.Kernel`) may do beside adapting: train theta in place."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from engine.types import Batch, Episodes, Float64, Params

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
    """What one step was taken along; losses are means."""

    before: float
    """Of its episodes' query sets under theta unadapted, NaN where none has one; without episodes, of its labels."""
    after: float
    """Of query sets after adaptation; NaN where there is none."""
    norm: float
    """Global norm of the gradient."""


class Pace(NamedTuple):
    """How far S steps go."""

    clip: float
    """The norm of a gradient, at most."""
    rates: Float64
    """[S] Adam's at each,"""
    linear: float
    """Adagrad's of the linear part,"""
    tables: float
    """and of tables."""
    decay: float
    """Weight decay of what Adam moves,"""
    first: float
    """and its betas."""
    second: float
    newest: Float64
    """[S] what the newest values weigh in the means."""


class InTraining(Protocol):
    """Theta that moves in place; by first-order backpropagation through adaptation, as `engine.outer.online` says."""

    def steps(self, labels: Batch, episodes: Episodes | None, share: float, pace: Pace) -> list[Slope]:
        """Take S steps, each along the gradient of the mean loss of labels of its own.

        To the first one's is added that of `share` of the loss of episodes after adaptation. Where a gradient is not
        finite, none is taken.
        """
        ...

    def trained(self) -> Trained:
        """Where it ended: it is not moved any more, since its tables are not copied."""
        ...

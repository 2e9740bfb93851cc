"""The inner step size: of those that pay, the one that new episodes lose least by.

One pays that is better than not to adapt at all by more than a standard error: adaptation takes time, and what trains
theta for it takes from what trains theta alone. The largest that look best are the least certain, so each is asked by
itself: a smaller one that pays is taken where a larger may be better by chance. At the beginning, when theta knows
nothing, all adaptation pays; so the choice looks back a few episodes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from engine.intervals import faded_mean, noted
from engine.types import Float64

SIZES = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Step sizes that `inner.lr = "auto"` chooses from; 0 where adaptation does not pay."""

MEMORY = 64.0
"""In episodes: how far back the choice looks, as a half-life."""

DIVERGED = 1e6
"""What an adaptation counts that has no finite loss."""


def chosen(before: Tensor | None, losses: Float64) -> tuple[float, Tensor]:
    """Choose by the losses [S, N] of N new episodes, adapted by steps of each size, and what was noted before.

    Returns the size, and what to hand in with the next episodes: of what each size cost more than none, [3, S].
    """
    finite = np.minimum(np.nan_to_num(losses, nan=DIVERGED), DIVERGED)
    cost = torch.from_numpy(finite - finite[SIZES.index(0.0)])
    total = noted(cost.new_zeros(3, len(SIZES)) if before is None else before, cost, MEMORY)
    mean, error = faded_mean(total)
    paid = np.where(mean + error < 0, mean, 0.0)
    return SIZES[int(paid.argmin())], total

"""Imported once by the server that test processes are forked from: what every one of them would load anew."""

from __future__ import annotations

import torch

from tests.faults import model, mortal

__all__ = ["mortal"]

torch.set_num_threads(1)
# Not as far as a round: autograd that ran in the parent runs in none of its forks.
model.uninterrupted(model.stream(0, model.GRID - 1))

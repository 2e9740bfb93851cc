"""Labels as numbers that a network can keep, find again, and answer with."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn

from engine.problem import Problem
from engine.targets import Classification, Regression
from engine.types import Batch


def one_hot(index: Tensor, size: int) -> Tensor:
    """Class indices [...] as [..., size]; torch's own reads values, which a recording must not."""
    member = index.unsqueeze(-1) == torch.arange(size, device=index.device)
    return member.to(index.dtype if index.is_floating_point() else torch.float32)


def mass_of(support: Batch) -> Tensor:
    """How many examples each of [U, S] counts for: its weight, times how many there are."""
    return support.weight * (support.weight > 0).sum(1, keepdim=True)


def code_width(problem: Problem) -> int:
    """How many numbers a label's code is."""
    return problem.target.outputs + 1


def coded(problem: Problem, support: Batch) -> Tensor:
    """Code labels [U, S] as [U, S, C + 1]: one-hot, or a number scaled to [-1, 1]; and 1. A blank is zeros.

    All of it is multiplied by how many examples this one counts for, so that a balanced support set keeps the
    base rates; and is zeros where there is no example.
    """
    target, y = problem.target, support.y.where(support.weight > 0, 0.0)
    if isinstance(target, Classification):
        labels = one_hot(y, target.outputs)
    else:
        labels = (2 * (y - target.low) / (target.high - target.low) - 1).unsqueeze(-1)
    return torch.cat([labels, torch.ones_like(labels[..., :1])], -1) * mass_of(support).unsqueeze(-1)


def answered(problem: Problem, own: Tensor, found: Tensor, log_floor: Tensor) -> Tensor:
    """Outputs [..., C] from the network's own [..., C] and the mean code [..., C + 1] of the labels found.

    Where no label was found, they are the network's own (classes: plus a constant).
    """
    labels = found[..., :-1] / (found[..., -1:] + 1e-6)
    if isinstance(problem.target, Regression):
        return problem.target.low + (own + labels + 1) * (problem.target.high - problem.target.low) / 2
    return own + (labels + log_floor.exp()).log()


def log_floor() -> nn.Parameter:
    """The share, as a logarithm, of a class that no label was found of."""
    return nn.Parameter(torch.tensor(0.05).log())


def scaled(x: Tensor) -> Tensor:
    """Vectors [..., D] at mean square 1."""
    return unit(x) * sqrt(x.shape[-1])


def unit(x: Tensor, beside: float = 1e-6) -> Tensor:
    """Vectors at length 1, those of a square length well below `beside` near 0; smooth at zeros."""
    return x * (x.square().sum(-1, keepdim=True) + beside).rsqrt()

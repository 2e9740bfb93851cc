"""A multilayer perceptron with layer normalisation: the default network for tabular events.

Layer normalisation (Ba, Kiros, Hinton 2016, arXiv:1607.06450) keeps no running statistics, so one
task's batch never leaks into another's, which batch normalisation would.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


def mlp(inputs: int, outputs: int, hidden: Sequence[int] = (64, 64)) -> nn.Module:
    """Linear, LayerNorm and ReLU per hidden layer, then a linear head."""
    layers: list[nn.Module] = []
    width = inputs
    for size in hidden:
        layers += [nn.Linear(width, size), nn.LayerNorm(size), nn.ReLU()]
        width = size
    return nn.Sequential(*layers, nn.Linear(width, outputs))

"""A multilayer perceptron with layer normalisation: the default network for tabular events.

Layer normalisation (Ba, Kiros, Hinton 2016, arXiv:1607.06450) keeps no running statistics, so one
task's batch never leaks into another's, which batch normalisation would (`engine.networks.norms`).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from engine.networks.heads import Head, last, linear
from engine.networks.norms import Norm, row_norm


def mlp(
    inputs: int,
    outputs: int,
    hidden: Sequence[int] = (64, 64),
    norm: Norm = "layer",
    head: Head = "random",
) -> nn.Module:
    """Linear, norm and ReLU per hidden layer, then a linear head."""
    layers: list[nn.Module] = []
    width = inputs
    for size in hidden:
        layers += [nn.Linear(width, size), row_norm(norm, size), nn.ReLU()]
        width = size
    if layers:
        layers[-1] = last(head, layers[-1])
    return nn.Sequential(*layers, linear(head, width, outputs))

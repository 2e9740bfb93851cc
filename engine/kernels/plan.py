"""Which networks the inner loop knows: Linear, LayerNorm and ReLU again and again, a head, a linear model beside."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from engine.features.encoder import FrontEnd
from engine.kernels.network import (
    BELOW,
    ENTRIES,
    EPSILON,
    EVERYTHING,
    FORWARD,
    HEAD,
    NORMS,
    SHIFT,
    UNITS,
    WEIGHT,
    Network,
)
from engine.kernels.products import rounded_up
from engine.networks.wide_deep import WideAndDeep
from engine.problem import Problem
from engine.targets import Classification
from engine.types import Float32, Int64, Params

OWNS = {"all": EVERYTHING, "head+norms": NORMS, "head": HEAD}


class Vector(NamedTuple):
    """How parameters lie one after the other, each row of them padded to whole vectors."""

    starts: dict[str, int]
    size: int
    places: Int64
    """Of each number, in torch's order."""

    def padded(self, values: Float32) -> Float32:
        """Numbers in torch's order, as they lie here."""
        found = np.zeros(self.size, np.float32)
        found[self.places] = values
        return found

    def of(self, params: Params) -> Float32:
        """Parameters by name, as they lie here."""
        return self.padded(np.concatenate([params[name].detach().numpy().ravel() for name in self.starts]))


class Plan(NamedTuple):
    """A network that the kernels know."""

    network: Network
    own: Vector
    body: Vector
    weights: tuple[str, ...]
    """Names of the hidden layers' weights, in order."""
    widths: tuple[int, ...]
    """Of the hidden layers."""

    def forward(self, params: Params) -> Float32:
        """The hidden layers' weights, transposed, one after the other."""
        return np.concatenate([_turned(params[name].detach().numpy()) for name in self.weights])


def plan_of(problem: Problem, own: Mapping[str, torch.Size]) -> Plan | None:
    """The plan of a problem's network, whose tasks own these parameters; None where it is another kind of network."""
    model = problem.model()
    front, network = model
    numbers, prefix = -1, "1."
    if type(network) is WideAndDeep:
        numbers, prefix, network = network.numbers, "1.network.", network.network
    if type(front) is not FrontEnd or type(network) is not nn.Sequential or not is_known(network):
        return None
    body = {name: value.shape for name, value in model.named_parameters() if name.startswith("1.")}
    vectors = vector_of(own), vector_of(body)
    weights = tuple(f"{prefix}{n}.weight" for n in range(0, len(network) - 1, 3))
    widths = tuple(body[name][0] for name in weights)
    return Plan(_network(problem, network, prefix, numbers, *vectors), *vectors, weights, widths)


def is_known(network: nn.Sequential) -> bool:
    """Whether a network is Linear, LayerNorm and ReLU once or more, and a Linear; the last ReLU may be left out."""
    *layers, head = network
    if not layers or len(layers) % 3 or type(head) is not nn.Linear or head.bias is None:
        return False
    if any(type(one) is not nn.ReLU for one in layers[2:-1:3]):
        return False
    if type(layers[-1]) not in (nn.ReLU, nn.Identity):
        return False
    return all(_is_normalised(*pair) for pair in zip(layers[::3], layers[1::3], strict=True))


def _is_normalised(linear: nn.Module, norm: nn.Module) -> bool:
    if type(linear) is not nn.Linear or type(norm) is not nn.LayerNorm:
        return False
    if linear.bias is None or norm.weight is None or norm.bias is None:
        return False
    return norm.normalized_shape == (linear.out_features,) and np.float32(norm.eps) == EPSILON


def vector_of(shapes: Mapping[str, torch.Size]) -> Vector:
    """Parameters of these shapes as one vector."""
    starts, places, size = {}, [np.arange(0)], 0
    for name, shape in shapes.items():
        columns = shape[-1]
        rows = shape.numel() // max(columns, 1)
        row = rounded_up(columns)
        starts[name] = size
        places.append((size + np.arange(rows)[:, None] * row + np.arange(columns)).ravel())
        size += rows * row
    return Vector(starts, size, np.concatenate(places))


def _turned(weight: Float32) -> Float32:
    units, inputs = weight.shape
    found = np.zeros((inputs, rounded_up(units)), np.float32)
    found[:, :units] = weight.T
    return found.ravel()


def _network(
    problem: Problem, network: nn.Sequential, prefix: str, numbers: int, own: Vector, body: Vector
) -> Network:
    starts, target = {**body.starts, **own.starts}, problem.target
    parts = (f"{prefix}{n}.{part}" for n in range(len(network)) for part in ("weight", "bias"))
    *found, head, head_bias = [starts[name] for name in parts if name in starts]
    inputs = [layer.in_features for layer in network if isinstance(layer, nn.Linear)]
    forward = np.cumsum([a * rounded_up(b) for a, b in pairwise(inputs)])
    table = np.zeros((len(forward), ENTRIES), np.int64)
    table[:, BELOW], table[:, UNITS], table[1:, FORWARD] = inputs[:-1], inputs[1:], forward[:-1]
    table[:, WEIGHT : SHIFT + 1] = np.array(found).reshape(-1, 4)
    return Network(
        owns=OWNS[problem.adapts],
        layers=len(table),
        table=table.ravel(),
        widest=rounded_up(max(inputs)),
        rectified=isinstance(network[-2], nn.ReLU),
        head=head,
        head_bias=head_bias,
        numbers=max(numbers, 0),
        linear=starts["1.linear.weight"] if numbers >= 0 else -1,
        linear_bias=starts["1.linear.bias"] if numbers >= 0 else -1,
        outputs=target.outputs,
        named=len(target.classes) if isinstance(target, Classification) else 0,
    )

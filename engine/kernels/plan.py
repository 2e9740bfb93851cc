"""Which networks the inner loop knows: those of the row loop that are linear, normalised and rectified by turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from engine.kernels.network import (
    BELOW,
    ENTRIES,
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
from engine.kernels.row_by_row import RowByRow
from engine.kernels.row_loop import LINEAR, NORM, RECTIFIER
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
    shapes: dict[str, torch.Size]
    """Of each parameter."""

    def padded(self, values: Float32) -> Float32:
        """Numbers in torch's order, as they lie here."""
        found = np.zeros(self.size, np.float32)
        found[self.places] = values
        return found

    def of(self, params: Params) -> Float32:
        """Parameters by name, as they lie here; zeros where there is none of a name."""
        flat = [
            params[name].detach().numpy().ravel() if name in params else np.zeros(shape.numel(), np.float32)
            for name, shape in self.shapes.items()
        ]
        return self.padded(np.concatenate(flat))

    def named(self, values: Float32) -> Params:
        """Numbers that lie so, by name."""
        return named(values[self.places], self.shapes)


class Plan(NamedTuple):
    """A network that the kernels know."""

    network: Network
    whole: Network
    """The same as a task that owns all of it would have it: every parameter lies in `body`."""
    own: Vector
    body: Vector
    weights: tuple[str, ...]
    """Names of the hidden layers' weights, in order."""
    widths: tuple[int, ...]
    """Of the hidden layers."""

    @property
    def owned(self) -> Int64:
        """Where in `body` each number lies that a task owns, padding among them."""
        found = np.zeros(self.own.size, np.int64)
        ends = [*self.own.starts.values(), self.own.size][1:]
        for (name, start), stop in zip(self.own.starts.items(), ends, strict=True):
            found[start:stop] = self.body.starts[name] + np.arange(stop - start)
        return found

    def forward(self, params: Params) -> Float32:
        """The hidden layers' weights, transposed, one after the other."""
        return np.concatenate([_turned(params[name].detach().numpy()) for name in self.weights])


def plan_of(front: RowByRow, problem: Problem, own: Mapping[str, torch.Size]) -> Plan | None:
    """The plan of a network that runs row by row, whose tasks own these parameters; None of another kind."""
    if not is_known([layer.kind for layer in front.layers]):
        return None
    of_model = problem.outline.named_parameters()
    body = {name: value.shape for name, value in of_model if name.startswith("1.")}
    vectors = vector_of(own), vector_of(body)
    weights = tuple(f"{layer.name}weight" for layer in front.layers[:-1] if layer.kind == LINEAR)
    widths = tuple(body[name][0] for name in weights)
    owned, whole = (_network(front, problem, own, vectors[1]) for own in vectors)
    return Plan(owned, whole._replace(owns=EVERYTHING), *vectors, weights, widths)


def is_known(kinds: Sequence[int]) -> bool:
    """Whether layers are linear, normalised and rectified once or more, at last perhaps not, and a linear one."""
    *hidden, head = kinds
    whole = hidden if hidden[-1:] == [RECTIFIER] else [*hidden, RECTIFIER]
    return head == LINEAR and whole == [LINEAR, NORM, RECTIFIER] * (len(whole) // 3)


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
    return Vector(starts, size, np.concatenate(places), dict(shapes))


def named(values: Float32, shapes: Mapping[str, torch.Size]) -> Params:
    """Numbers, one parameter's after the other's, by name."""
    parts = torch.from_numpy(values).split([shape.numel() for shape in shapes.values()])
    return {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def _turned(weight: Float32) -> Float32:
    units, inputs = weight.shape
    found = np.zeros((inputs, rounded_up(units)), np.float32)
    found[:, :units] = weight.T
    return found.ravel()


def _network(front: RowByRow, problem: Problem, own: Vector, body: Vector) -> Network:
    starts, target, shape = {**body.starts, **own.starts}, problem.target, front.shape
    named = [layer.name for layer in front.layers if layer.kind != RECTIFIER]
    *found, head, head_bias = [starts[name + part] for name in named for part in ("weight", "bias")]
    inputs = [layer.inputs for layer in front.layers if layer.kind == LINEAR]
    forward = np.cumsum([a * rounded_up(b) for a, b in pairwise(inputs)])
    table = np.zeros((len(forward), ENTRIES), np.int64)
    table[:, BELOW], table[:, UNITS], table[1:, FORWARD] = inputs[:-1], inputs[1:], forward[:-1]
    table[:, WEIGHT : SHIFT + 1] = np.array(found).reshape(-1, 4)
    return Network(
        owns=OWNS[problem.adapts],
        layers=len(table),
        table=table.ravel(),
        widest=rounded_up(max(inputs)),
        rectified=front.layers[-2].kind == RECTIFIER,
        head=head,
        head_bias=head_bias,
        numbers=shape.numbers if shape.wide else 0,
        linear=starts["1.linear.weight"] if shape.wide else -1,
        linear_bias=starts["1.linear.bias"] if shape.wide else -1,
        outputs=target.outputs,
        named=len(target.classes) if isinstance(target, Classification) else 0,
    )

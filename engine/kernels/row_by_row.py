"""Which networks the compiled loop (`row_loop`) runs row by row, and where their parameters lie.

Our own front end, and behind it linear layers, layer normalisation and rectifiers, with a linear model beside them or
not: the default of a stream. Any other network runs in blocks of tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.features.encoder import FrontEnd
from engine.kernels.row_loop import EPSILON, LINEAR, NORM, RECTIFIER, Shape, row_inputs, row_outputs
from engine.learners.base import PredictsByModel
from engine.networks.wide_deep import WideAndDeep
from engine.types import Float32, Int64, Params


@dataclass(frozen=True)
class RowByRow:
    """How the outputs of a learner's model are worked out row by row."""

    shape: Shape
    parts: tuple[tuple[str, bool], ...]
    """Theta's parameters in the order in which its numbers lie, and whether each is transposed."""

    def numbers_of(self, meta: Params) -> Float32:
        """Theta's numbers [T], as `shape` places them."""
        values = ((meta[name].detach(), turned) for name, turned in self.parts)
        flat = [(value.t() if turned else value).reshape(-1) for value, turned in values]
        numbers: Float32 = torch.cat([torch.zeros(1), *flat]).numpy()
        return numbers

    def placed(self, meta: Params) -> Shape:
        """The shape where theta's tables, which lie last, may be shorter: cut to the buckets that some rows name."""
        starts = np.cumsum([1, *(meta[name].numel() for name, _ in self.parts)])
        of = {name: start for (name, _), start in zip(self.parts, starts.tolist(), strict=False)}
        bags = self.shape.bags.copy()
        for n, bag in enumerate(bags):
            bag[3:] = of[f"0.embeddings.{n}.weight"], of.get(f"0.wide.{n}.weight", 0)
        return self.shape._replace(bags=bags)

    def inputs(self, shape: Shape, numbers: Float32, x: Float32, width: int) -> tuple[Float32, Float32]:
        """What the network reads of stored rows x [n, W], padded to [n, width], and the weights [n, C] beside it."""
        dense = np.zeros((len(x), width), np.float32)
        wide = np.zeros((len(x), shape.outputs), np.float32)
        row_inputs(shape, numbers, x, dense, wide)
        return dense, wide

    def outputs(self, numbers: Float32, own: Float32, which: Int64, x: Float32) -> Float32:
        """Outputs [n, C] for stored rows x [n, W], row i by the fast parameters own[which[i]] of [m, F]."""
        out = np.empty((len(x), self.shape.outputs), np.float32)
        row_outputs(self.shape, numbers, own, which, x, out)
        return out


class _Places:
    """Where parameters lie: in theta's numbers, in the order in which they are asked for, or in a task's own."""

    def __init__(self, learner: PredictsByModel) -> None:
        self.parts: list[tuple[str, bool]] = []
        self.size, self.own, behind = 1, dict[str, int](), 0
        for name, shape in learner.fast_shapes.items():
            self.own[name] = -1 - behind
            behind += shape.numel()

    def of(self, name: str, value: Tensor | None, turned: bool = False) -> int:
        """The place of a parameter; of one that there is not, that of a number which nobody reads."""
        if value is None:
            return 0
        if name in self.own:
            return self.own[name]
        self.parts.append((name, turned))
        self.size += value.numel()
        return self.size - value.numel()


def row_by_row(learner: object) -> RowByRow | None:
    """How the outputs of a learner's model are worked out row by row; None where the loop does not know all of it."""
    if not (isinstance(learner, PredictsByModel) and learner.predicts_by_model):
        return None
    front, network = learner.problem.model()
    wide = network if type(network) is WideAndDeep else None
    linear = wide.linear if wide else None
    if type(front) is not FrontEnd:
        return None
    places = _Places(learner)
    layers = _layers(*(("1.network.", wide.network) if wide else ("1.", network)), front.width, places)
    if layers is None or layers[-1, 2] != learner.problem.target.outputs:
        return None
    shape = Shape(
        **_front_end(front, places),
        outputs=learner.problem.target.outputs,
        width=front.width,
        widest=max(front.width, int(layers[:, 2].max())),
        layers=layers,
        wide=wide is not None,
        numbers=front.numbers,
        weight=places.of("1.linear.weight", linear.weight if linear else None, turned=True),
        bias=places.of("1.linear.bias", linear.bias if linear else None),
        bags=_bags(front, places),
    )
    return RowByRow(shape, tuple(places.parts))


def _layers(prefix: str, network: nn.Module, width: int, places: _Places) -> Int64 | None:
    """The layers [L, 5] of a network of so many inputs; None where one is not ours."""
    layers: list[list[int]] = []
    for name, module in _flat(prefix, network):
        if type(module) is nn.Linear and module.in_features == width and module.bias is not None:
            kind, inputs, width = LINEAR, width, module.out_features
        elif type(module) is nn.LayerNorm and _is_ours(module, width):
            kind, inputs = NORM, width
        elif type(module) is nn.ReLU:
            kind, inputs = RECTIFIER, width
        elif type(module) is nn.Identity:
            continue
        else:
            return None
        parameters = dict(module.named_parameters())
        weight = places.of(name + "weight", parameters.get("weight"), turned=kind == LINEAR)
        layers.append([kind, inputs, width, weight, places.of(name + "bias", parameters.get("bias"))])
    return np.array(layers, np.int64) if layers else None


def _is_ours(norm: nn.LayerNorm, width: int) -> bool:
    """Whether rows are normalised whole, with weights and biases."""
    return norm.normalized_shape == (width,) and norm.eps == EPSILON and len(list(norm.parameters())) == 2


def _flat(prefix: str, network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The layers of nested sequences, each with what the names of its parameters begin with."""
    if type(network) is not nn.Sequential:
        yield prefix, network
        return
    for name, module in network.named_children():
        yield from _flat(f"{prefix}{name}.", module)


def _front_end(front: FrontEnd, places: _Places) -> dict[str, Any]:
    """What the loop must know of a front end."""
    past, classes = front.history, front.classes or 0
    rate, unit = (front.label_rate, None) if classes else (front.label_mean, front.label_std)
    return {
        "numeric": _index(front.numeric),
        "mean": places.of("0.mean", front.mean),
        "std": places.of("0.std", front.std),
        "flagged": _index(front.numeric[i] for i in front.flagged),
        "plain": _index(front.plain),
        "sets": _index(front.sets),
        "classes": classes,
        "rate": places.of("0.label_rate" if classes else "0.label_mean", rate),
        "unit": places.of("0.label_std", unit),
        "last": past.last if past and (front.marks or not classes) else -1,
        "marks": front.marks,
    }


def _bags(front: FrontEnd, places: _Places) -> Int64:
    """What the loop must know [B, 5] of categories and texts."""
    ids = [*((at, 1) for at in front.categories), *((of.start, of.stop - of.start) for of in front.texts)]
    tables = dict(front.named_parameters())
    bags = []
    for n, (start, count) in enumerate(ids):
        values, weights = (tables.get(f"{kind}.{n}.weight") for kind in ("embeddings", "wide"))
        embedded = places.of(f"0.embeddings.{n}.weight", values), places.of(f"0.wide.{n}.weight", weights)
        bags.append([start, count, tables[f"embeddings.{n}.weight"].shape[1], *embedded])
    return np.array(bags, np.int64).reshape(-1, 5)


def _index(places: Iterable[int]) -> Int64:
    return np.fromiter(places, np.int64)

"""Which networks the compiled loop (`row_loop`) runs row by row, and where their parameters lie.

Our own front end, and behind it linear layers, layer normalisation and rectifiers, with a linear model beside them or
not: the default of a stream. Any other network runs in blocks of tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from engine.compiled import checked_for
from engine.features.front_end import FrontEnd
from engine.kernels.latest import Latest
from engine.kernels.network import EPSILON
from engine.kernels.row_loop import LINEAR, NORM, RECTIFIER, log_rates, row_inputs
from engine.kernels.row_theta import ROW_THETA, RowTheta, Shape
from engine.learners.base import PredictsByModel
from engine.networks.wide_deep import WideAndDeep
from engine.types import Float32, Int64, Params


class Layer(NamedTuple):
    """One layer of a network, in order."""

    kind: int
    inputs: int
    outputs: int
    name: str
    """What the names of its parameters begin with."""


def inputs_of(theta: RowTheta, x: Float32, width: int) -> tuple[Float32, Float32]:
    """What a network reads of stored rows x [n, W], padded to [n, width], and the weights [n, C] beside it."""
    dense, wide = np.zeros((len(x), width), np.float32), np.zeros((len(x), theta.shape.outputs), np.float32)
    row_inputs(theta, x, dense, wide)
    return dense, wide


class RowByRow:
    """How the outputs of a learner's model are worked out row by row."""

    def __init__(
        self, shape: Shape, parts: Sequence[tuple[str, bool]], tables: Sequence[str], layers: Sequence[Layer]
    ) -> None:
        """`parts` are theta's parameters in the order in which its numbers lie, and whether each is transposed.

        `tables` of buckets lie apart, in their own order.
        """
        self.shape, self.parts, self.tables, self.layers = shape, parts, tables, layers
        self._latest = Latest(self._made)

    def of(self, params: Params) -> RowTheta:
        """One version of theta."""
        return self._latest.of(params)

    def _made(self, params: Params) -> RowTheta:
        values = ((params[name].detach(), turned) for name, turned in self.parts)
        flat = [(value.t() if turned else value).reshape(-1) for value, turned in values]
        numbers: Float32 = torch.cat([torch.zeros(1), *flat]).numpy()
        shape, log_rate = self._placed(params), np.empty(self.shape.classes)
        log_rates(shape, numbers, log_rate)
        tables = one_after_the_other([params[name].detach() for name in self.tables])
        return checked_for(ROW_THETA, RowTheta(shape, numbers, tables, log_rate))

    def _placed(self, params: Params) -> Shape:
        """The shape where theta's tables may be shorter: cut to the buckets that some rows name."""
        starts = np.cumsum([0, *(params[name].numel() for name in self.tables)])
        of = dict(zip(self.tables, starts.tolist(), strict=False))
        bags = self.shape.bags.copy()
        for n, bag in enumerate(bags):
            bag[3:] = of[f"0.embeddings.{n}.weight"], of.get(f"0.wide.{n}.weight", 0)
        return self.shape._replace(bags=bags)


def one_after_the_other(values: Sequence[Tensor]) -> Float32:
    """Values as one vector: where they lie, if they lie so already, since tables are large and seldom come apart."""
    if not values or not _are_neighbours(values):
        joined: Float32 = torch.cat([torch.zeros(0), *(value.reshape(-1) for value in values)]).numpy()
        return joined
    whole: Float32 = values[0].as_strided((sum(value.numel() for value in values),), (1,)).numpy()
    return whole


def _are_neighbours(values: Sequence[Tensor]) -> bool:
    """Whether each begins in memory where the one before ends."""
    memory, place = values[0].untyped_storage().data_ptr(), values[0].data_ptr()
    for value in values:
        if (
            not value.is_contiguous()
            or value.untyped_storage().data_ptr() != memory
            or value.data_ptr() != place
        ):
            return False
        place += value.nbytes
    return True


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
    front, network = learner.problem.outline
    wide = network if type(network) is WideAndDeep else None
    linear = wide.linear if wide else None
    if type(front) is not FrontEnd:
        return None
    layers = _layers(*(("1.network.", wide.network) if wide else ("1.", network)), front.width)
    if not layers or layers[-1].outputs != learner.problem.target.outputs:
        return None
    places = _Places(learner)
    shape = Shape(
        layers=_table(layers, dict(learner.problem.outline.named_parameters()), places),
        **_front_end(front, places),
        outputs=learner.problem.target.outputs,
        width=front.width,
        widest=max(front.width, *(layer.outputs for layer in layers)),
        wide=wide is not None,
        numbers=front.numbers,
        weight=places.of("1.linear.weight", linear.weight if linear else None, turned=True),
        bias=places.of("1.linear.bias", linear.bias if linear else None),
        bags=_bags(front),
    )
    return RowByRow(shape, places.parts, _tables(front), layers)


def _layers(prefix: str, network: nn.Module, width: int) -> list[Layer]:
    """The layers of a network of so many inputs; none where one is not ours."""
    layers: list[Layer] = []
    for name, module in _flat(prefix, network):
        if type(module) is nn.Linear and module.in_features == width and module.bias is not None:
            layers.append(Layer(LINEAR, width, module.out_features, name))
            width = module.out_features
        elif type(module) is nn.LayerNorm and _is_ours(module, width):
            layers.append(Layer(NORM, width, width, name))
        elif type(module) is nn.ReLU:
            layers.append(Layer(RECTIFIER, width, width, name))
        elif type(module) is not nn.Identity:
            return []
    return layers


def _table(layers: Sequence[Layer], parameters: Mapping[str, Tensor], places: _Places) -> Int64:
    """The layers [L, 5] as the loop reads them."""
    found = [
        [
            *layer[:3],
            places.of(layer.name + "weight", parameters.get(layer.name + "weight"), layer.kind == LINEAR),
            places.of(layer.name + "bias", parameters.get(layer.name + "bias")),
        ]
        for layer in layers
    ]
    return np.array(found, np.int64)


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


def _bags(front: FrontEnd) -> Int64:
    """What the loop must know [B, 5] of categories and texts; where their tables lie, each theta says."""
    ids = [*((at, 1) for at in front.categories), *((of.start, of.stop - of.start) for of in front.texts)]
    widths = [table.embedding_dim for table in front.embeddings if isinstance(table, nn.Embedding)]
    found = [[*places, width, 0, 0] for places, width in zip(ids, widths, strict=True)]
    return np.array(found, np.int64).reshape(-1, 5)


def _tables(front: FrontEnd) -> list[str]:
    """The names of tables of buckets, those of one category or text side by side."""
    kinds = ("embeddings", "wide") if len(front.wide) else ("embeddings",)
    return [f"0.{kind}.{n}.weight" for n in range(len(front.embeddings)) for kind in kinds]


def _index(places: Iterable[int]) -> Int64:
    return np.fromiter(places, np.int64)

"""Wide and deep with the task's id (Cheng et al. 2016, arXiv:1606.07792): how personalization is done in production.

A linear model of every bucket and number, the task's among them, and beside it an embedding of each category and of
the task before a network of two layers that begins at zero. Sparse tables take Adagrad, the network Adam. It learns
online: from each mini-batch of labels as they become known, in order, once; an observation is predicted by the
weights of its moment.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.real_streams.baselines import Variants
from benchmarks.real_streams.prepared import Prepared
from engine.features.columns import STANDARDISED_LIMIT, Category, Numeric
from engine.targets import Regression
from engine.types import Float32, Float64, Int64

EMBEDDING, HIDDEN = 8, 64
RATES = ((0.1, 1e-3), (0.1, 1e-2), (0.3, 1e-3), (0.3, 1e-2))
"""Of the sparse tables, and of the network."""

SMALL_BATCH, BATCH, LARGE_BATCH = 8, 64, 256
SMALL = 20_000
"""A stream of fewer labels has smaller batches, so that it takes steps enough."""


def wide_deep_task(stream: Prepared) -> Variants:
    """For each pair of rates; the first two alone where there are many rows."""
    batch = LARGE_BATCH if stream.source.heavy else SMALL_BATCH if len(stream.y) < SMALL else BATCH
    numbers, ids, buckets = _inputs(stream)
    for rates in RATES[:2] if stream.source.heavy else RATES:
        torch.manual_seed(0)
        torch.sparse.check_sparse_tensor_invariants.disable()  # said once, or torch warns at every gradient
        model = WideAndDeep(numbers.shape[1], ids.shape[1], buckets, stream.target.outputs)
        name = f"rates {rates[0]:g} and {rates[1]:g}, batches of {batch}"
        yield name, _online(stream, model, numbers, ids, rates, batch)


class WideAndDeep(nn.Module):
    """Numbers and columns of ids to outputs; the ids of all columns lie one after another in each table."""

    def __init__(self, numbers: int, columns: int, buckets: int, outputs: int) -> None:
        super().__init__()
        self.wide = nn.Embedding(buckets, outputs, sparse=True)
        self.embedding = nn.Embedding(buckets, EMBEDDING, sparse=True)
        nn.init.zeros_(self.wide.weight)
        nn.init.normal_(self.embedding.weight, std=0.1)
        last = nn.Linear(HIDDEN, outputs)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        width = numbers + columns * EMBEDDING
        self.deep = nn.Sequential(
            nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), last
        )
        self.linear = nn.Linear(numbers, outputs)
        nn.init.zeros_(self.linear.weight)

    def forward(self, numbers: Tensor, ids: Tensor) -> Tensor:
        """Outputs [N, C] of numbers [N, D] and ids [N, columns]."""
        embedded = torch.cat([numbers, self.embedding(ids).flatten(1)], dim=1)
        return self.linear(numbers) + self.wide(ids).sum(1) + self.deep(embedded)  # type: ignore[no-any-return]


def _inputs(stream: Prepared) -> tuple[Tensor, Tensor, int]:
    """Numbers [R, D] standardised by what came before, ids [R, columns], and how many ids there are."""
    numbers, ids, start, buckets = list[Float32](), [stream.events.task], 0, int(stream.events.task.max()) + 1
    observed = stream.events.order[stream.events.order >= 0]
    for column in stream.columns.columns:
        part = stream.events.x[:, start : start + column.width]
        start += column.width
        if isinstance(column, Category):
            ids.append(part[:, 0].astype(np.int64) + buckets)
            buckets += column.buckets
        elif isinstance(column, Numeric):
            numbers += [_standardised(part[:, 0], observed), np.isnan(part[:, 0]).astype(np.float32)]
        else:
            numbers += list(part.T)
    dense = np.stack(numbers, 1) if numbers else np.zeros((len(stream.events.x), 1), np.float32)
    return torch.from_numpy(dense), torch.from_numpy(np.stack(ids, 1)), buckets


def _standardised(values: Float32, observed: Int64) -> Float32:
    """By running mean and deviation, in the order of observations; a missing number is 0."""
    ordered = values[observed].astype(np.float64)
    there = ~np.isnan(ordered)
    filled = np.where(there, ordered, 0.0)
    centre = filled[there][:1].sum()  # sums of squares lose nothing where values lie far from zero
    filled = np.where(there, filled - centre, 0.0)
    count = np.maximum(np.cumsum(there), 1)
    mean = np.cumsum(filled) / count
    deviation = np.sqrt(np.maximum(np.cumsum(filled**2) / count - mean**2, 0))
    standard = np.where(there & (deviation > 0), (filled - mean) / np.where(deviation > 0, deviation, 1), 0.0)
    out = np.empty(len(values), np.float32)
    out[observed] = np.clip(standard, -STANDARDISED_LIMIT, STANDARDISED_LIMIT)
    return out


def _online(
    stream: Prepared, model: WideAndDeep, numbers: Tensor, ids: Tensor, rates: tuple[float, float], batch: int
) -> Float32:
    """Predictions [L, C] of the labels; the weights change after every `batch` labels."""
    tables = torch.optim.Adagrad([model.wide.weight, model.embedding.weight], lr=rates[0])
    network = torch.optim.Adam([*model.deep.parameters(), *model.linear.parameters()], lr=rates[1])
    y = torch.from_numpy(stream.y)
    order = stream.events.order
    version = (np.cumsum(order < 0) // batch)[order >= 0]
    observed, said = order[order >= 0], np.empty((len(numbers), stream.target.outputs), np.float32)
    ends = np.searchsorted(version, np.arange(len(y) // batch + 1), side="right")
    begin = 0
    for step, end in enumerate(ends.tolist()):
        known = stream.y[: step * batch]
        rows = torch.from_numpy(observed[begin:end])
        if len(rows):
            with torch.no_grad():
                said[observed[begin:end]] = _said(stream, model(numbers[rows], ids[rows]), known)
        begin = end
        labels = slice(step * batch, (step + 1) * batch)
        rows = torch.from_numpy(stream.row[labels])
        if len(rows):
            loss = _loss(stream, model(numbers[rows], ids[rows]), y[labels], stream.y[: (step + 1) * batch])
            tables.zero_grad()
            network.zero_grad()
            loss.backward()
            tables.step()
            network.step()
    return said[stream.row]


def _scale(stream: Prepared, known: Float64) -> tuple[float, float]:
    """Mean and deviation of the labels known, in the units of a regression."""
    if not isinstance(stream.target, Regression) or not len(known):
        return (stream.target.low + stream.target.high) / 2 if isinstance(
            stream.target, Regression
        ) else 0.0, 1.0
    return float(known.mean()), float(known.std()) or 1.0


def _said(stream: Prepared, outputs: Tensor, known: Float64) -> Float32:
    mean, deviation = _scale(stream, known)
    scaled = outputs * deviation + mean if isinstance(stream.target, Regression) else outputs
    return stream.target.predict(scaled).numpy()


def _loss(stream: Prepared, outputs: Tensor, y: Tensor, known: Float64) -> Tensor:
    if isinstance(stream.target, Regression):
        mean, deviation = _scale(stream, known)
        return F.mse_loss(outputs[:, 0], ((y - mean) / deviation).float())
    return F.cross_entropy(outputs, y.long())

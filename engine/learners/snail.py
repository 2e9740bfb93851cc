"""SNAIL: temporal convolutions and causal attention over the support set, one example after another.

Each layer appends channels to those of the positions t of a sequence, examples first, the query last:

    convolution of dilation d:  tanh(f) * s(g),  [f, g]_t = A h_t + B h_{t-d} + b       d = 1, 2, 4 .. length
    attention:                  sum_{i <= t} softmax_i(q(h_t) . k(h_i) / sqrt(K)) v(h_i)

in the order attention, convolutions, attention, convolutions, attention, and a linear output (Mishra et al.
2018, arXiv:1707.03141, section 3; fewer filters than the paper's 128, so that a CPU can train it). An input is
an embedding with its label beside it, blank for the query. Departures:

- Embeddings have mean square 1, and queries and keys begin as the embedding itself, so that attention begins
  as a search for similar examples.
- What the last attention finds of the examples' labels is added to the output, as log(p_k + e) for classes, with
  e learned, as it is for a number: theta has not to discover by itself that a label is worth copying.

Nothing looks ahead, so what a query needs of the support set is the same for every query: keys and values of each
attention, and B h_{t-d} of each convolution. That is what adaptation leaves; many queries of one task are then
answered side by side, each as if it alone came last. Keeping the inputs alone, to run them again at every
prediction, would take a fifth of the bytes, and at 25 examples some 80 times as long to predict (measured).

Not a transformer: the order of examples counts, also between equals, and no position sees a later one. Not a
recurrent network: nothing is forgotten that fits the length.
"""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.batches import bucket_of
from engine.learners.embedding import EmbeddingLearner
from engine.learners.labels import answered, code_width, coded, log_floor, scaled
from engine.problem import Problem
from engine.types import Batch, EngineError, Fast, Params

ATTENTIONS = 3
"""Attention layers, a block of convolutions between one and the next."""

HIDDEN = -1e9
"""The score of what a position must not see; finite, so that a task without examples has no NaN."""


class SnailLearner(EmbeddingLearner):
    """Fast parameters are what each layer keeps of the support set, which stands at the end of `length` places.

    Of a longer support set, which no row stores, attention reads all and convolutions what they reach: the dilations
    are those of `length`, which is the bucket of `problem.support`, so theta is of one length.
    """

    def __init__(self, problem: Problem, width: int = 64, filters: int = 32) -> None:
        """`filters` channels are appended by each layer."""
        if filters < 1:
            raise EngineError(f"filters, the channels that a layer appends, must be positive, got {filters}")
        self.filters, self.length, self.code = filters, bucket_of(problem.support), code_width(problem)
        self._dilations = [1 << i for i in range(self.length.bit_length())]
        super().__init__(problem, width)

    def own_modules(self) -> nn.Module:
        """Build what theta holds beside encoder and network, freshly initialised."""
        return _Layers(self.width, self.code, self.filters, len(self._dilations), self.target.outputs)

    def fast_of(self, meta: Params, support: Batch) -> Fast:
        """Compute fast parameters of U tasks from support x [U, S, W]."""
        h = self._sequence(meta, support)
        kept = {"labels": h[..., self.width :]}
        present = _present(kept)
        for block in range(ATTENTIONS):
            name = f"attention.{block}"
            kept[f"{name}.keys"], kept[f"{name}.values"], read = _attended(meta, name, h, present)
            h = torch.cat([h, read], -1)
            for i, dilation in enumerate(self._dilations if block < ATTENTIONS - 1 else ()):
                name = f"convolution.{block}.{i}"
                kept[name], new = _convolved(meta, name, h, present, dilation)
                h = torch.cat([h, new], -1)
        return kept

    def outputs_of(self, meta: Params, fast: Fast, x: Tensor) -> Tensor:
        """Compute outputs [U, N, C] of U tasks for x [U, N, W], each query as the only one after the support set."""
        keys = scaled(self.embed(meta, x))
        h = torch.cat([keys, keys.new_zeros(*keys.shape[:2], self.code)], -1)
        for block in range(ATTENTIONS):
            read, scores = _attending(meta, f"attention.{block}", h, fast)
            h = torch.cat([h, read], -1)
            for i in range(len(self._dilations) if block < ATTENTIONS - 1 else 0):
                name = f"convolution.{block}.{i}"
                now = _linear(meta, f"{name}.now", h) + fast[name].unsqueeze(1)
                h = torch.cat([h, _gated(now)], -1)
        found = torch.softmax(scores, dim=-1) @ fast["labels"]
        return answered(self.standard, _linear(meta, "output", h), found, meta["2.log_floor"])

    def _sequence(self, meta: Params, support: Batch) -> Tensor:
        """Embeddings and labels [U, length or S, width + code], in order, the last at the end; zeros before them."""
        spare = max(0, self.length - support.x.shape[1])
        present = (support.weight > 0).unsqueeze(-1)
        keys = scaled(self.embed(meta, support.x.where(present, 0.0)))
        both = torch.cat([keys, coded(self.standard, support)], -1).where(present, 0.0)
        order = present.to(torch.uint8).argsort(dim=1, stable=True)
        return F.pad(both.gather(1, order.expand_as(both)), (0, 0, spare, 0))


class _Layers(nn.Module):
    """Parameters of all layers, named as they are in `SnailLearner`."""

    def __init__(self, width: int, code: int, filters: int, dilations: int, outputs: int) -> None:
        super().__init__()
        self.attention, self.convolution = nn.ModuleList(), nn.ModuleList()
        channels = width + code
        for block in range(ATTENTIONS):
            self.attention.append(_attention(channels, width, filters))
            channels += filters
            if block < ATTENTIONS - 1:
                starts = [channels + i * filters for i in range(dilations)]
                self.convolution.append(nn.ModuleList(_convolution(start, filters) for start in starts))
                channels += dilations * filters
        self.output = nn.Linear(channels, outputs)
        self.log_floor = log_floor()
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)


def _attention(channels: int, width: int, filters: int) -> nn.Module:
    """Parameters of one attention; the first channels are the embedding, which keys and queries begin as."""
    parts = {"query": nn.Linear(channels, width), "key": nn.Linear(channels, width)}
    for part in parts.values():
        nn.init.eye_(part.weight)
        nn.init.zeros_(part.bias)
    return nn.ModuleDict({**parts, "value": nn.Linear(channels, filters)})


def _convolution(channels: int, filters: int) -> nn.Module:
    """Parameters of one convolution: f and g, of a position and of the one a dilation before."""
    now, past = nn.Linear(channels, 2 * filters), nn.Linear(channels, 2 * filters, bias=False)
    return nn.ModuleDict({"now": now, "past": past})


def _attended(meta: Params, name: str, h: Tensor, present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Keys and values of a support set h [U, L, D], and what each of its positions reads of those up to itself."""
    queries, keys, values = (_linear(meta, f"{name}.{part}", h) for part in ("query", "key", "value"))
    itself = torch.eye(h.shape[1], dtype=torch.bool, device=h.device)
    visible = itself | (present.unsqueeze(1) & torch.ones_like(itself).tril())
    scores = _scores(queries, keys).masked_fill(~visible, HIDDEN)
    return keys, values, torch.softmax(scores, dim=-1) @ values


def _attending(meta: Params, name: str, h: Tensor, fast: Fast) -> tuple[Tensor, Tensor]:
    """What each query h [U, N, D] reads of the support set and itself, and its scores [U, N, L] of the former."""
    queries, keys, values = (_linear(meta, f"{name}.{part}", h) for part in ("query", "key", "value"))
    scores = _scores(queries, fast[f"{name}.keys"]).masked_fill(~_present(fast).unsqueeze(1), HIDDEN)
    itself = (queries * keys).sum(-1, keepdim=True) / sqrt(keys.shape[-1])
    weights = torch.softmax(torch.cat([scores, itself], -1), dim=-1)
    return weights[..., :-1] @ fast[f"{name}.values"] + weights[..., -1:] * values, scores


def _convolved(meta: Params, name: str, h: Tensor, present: Tensor, dilation: int) -> tuple[Tensor, Tensor]:
    """What a convolution adds to a query after a support set h [U, L, D], and its activations along the set."""
    past = _linear(meta, f"{name}.past", h) * present.unsqueeze(-1)
    shifted = F.pad(past, (0, 0, dilation, 0))[:, : h.shape[1]]
    return past[:, -dilation], _gated(_linear(meta, f"{name}.now", h) + shifted)


def _gated(both: Tensor) -> Tensor:
    filtered, gate = both.chunk(2, dim=-1)
    return torch.tanh(filtered) * torch.sigmoid(gate)


def _scores(queries: Tensor, keys: Tensor) -> Tensor:
    return queries @ keys.transpose(1, 2) / sqrt(keys.shape[-1])


def _present(fast: Fast) -> Tensor:
    """Which of the places of a support set are taken, [U, L]: where there is a label."""
    return fast["labels"][..., -1] > 0


def _linear(meta: Params, name: str, x: Tensor) -> Tensor:
    return F.linear(x, meta[f"2.{name}.weight"], meta.get(f"2.{name}.bias"))

"""Matching networks: a query takes the labels of the examples it resembles, by attention.

    p(y | x, S) = sum over i of a(x, x_i) y_i;   a(x, x_i) = softmax over i of  s cos(f(x), g(x_i))

(Vinyals et al. 2016, arXiv:1606.04080, equation 1 and section 2.1.1.) The paper has no s: plain cosines lie within 2,
so that in 5 ways the right class gets at most e^2 / (e^2 + 4) = .65, and training is slow. Here s is learned, and
begins at 10. In full context (section 2.1.2, appendix A) an example is embedded in the light of the others, and a
query in the light of all:

    g(x_i) = g'(x_i) + onward LSTM at i + backward LSTM at i
    f(x) = h_K;   h_k = f'(x) + LSTM([f'(x), r], h_k-1);   r = sum over i of softmax_i(h_k-1 . g(x_i)) g(x_i)

with h_0 = f'(x), and h . g over the root of their width, as in a transformer. An example counts by its weight, so a
balanced support set keeps the base rates. Where a class is the same class in every task, theta brings a key of each,
of a learned weight; for a regression, which is then kernel regression (Nadaraya 1964, Watson 1964), one key and a
head: a task never labelled predicts with them. Not Prototypical Networks, which compare with one mean a class; not
a memory that is written to and forgets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from engine.batches import bucket_of
from engine.learners.base import below
from engine.learners.embedding import EmbeddingLearner
from engine.learners.labels import mass_of, one_hot
from engine.problem import Problem
from engine.targets import Classification, Regression
from engine.types import Batch, EngineError, Fast, Params

SHARPEST = 32.0
"""The greatest factor s: e to the power of minus 2 s, the least share of an example, is still a float32."""

BEGIN_AT = 10.0
"""The factor s at first."""


class MatchingLearner(EmbeddingLearner):
    """Fast parameters are the examples themselves: a key, a label and a mass of each.

    There are places for the bucket of `problem.support`, as a row stores them, or for as many as are given. With
    `full_context` the order of the examples matters, to the LSTM over them; without it the support set is a set.
    """

    def __init__(self, problem: Problem, width: int = 64, full_context: bool = True, reads: int = 3) -> None:
        if reads < 1:
            raise EngineError(f"reads, which a query makes of its support set, must be positive, got {reads}")
        self.full_context, self.reads = full_context, reads
        super().__init__(problem, width)
        self.fast_shapes = layout(problem, width)

    def own_modules(self) -> nn.Module:
        """Build what theta holds beside encoder and network, freshly initialised."""
        own = nn.ModuleDict({"match": Match(self.target, self.width)})
        if self.full_context:
            own["support"] = _SupportContext(self.width)
            own["query"] = _QueryContext(self.width, self.reads)
        return own

    def fast_of(self, meta: Params, support: Batch) -> Fast:
        """Compute fast parameters of U tasks from support x [U, S, W]."""
        present, x = examples_of(support)
        keys = self.embed(meta, x)
        if self.full_context:
            context = self._model.get_submodule("2.support")
            keys = functional_call(context, below("2.support.", meta), (keys, present))
        return kept(self.fast_shapes, keys, support)

    def outputs_of(self, meta: Params, fast: Fast, x: Tensor) -> Tensor:
        """Compute outputs [U, N, C] of U tasks for x [U, N, W]: log-probabilities, or values."""
        queries, recalled = self.embed(meta, x), recall(below("2.match.", meta), fast)
        if self.full_context:
            context = self._model.get_submodule("2.query")
            queries = functional_call(
                context, below("2.query.", meta), (queries, recalled.keys, recalled.mass)
            )
        match = self._model.get_submodule("2.match")
        return functional_call(match, below("2.match.", meta), (queries, recalled))  # type: ignore[no-any-return]


class Recalled(NamedTuple):
    """What queries are compared with: theta's own keys first, then M - own places for a task's examples."""

    keys: Tensor
    """[U, M, D]"""
    labels: Tensor
    """[U, M]"""
    mass: Tensor
    """[U, M] how many examples each counts for; 0 where there is none."""


class Match(nn.Module):
    """The comparison, and what theta knows before any example."""

    def __init__(self, target: Classification | Regression, width: int) -> None:
        super().__init__()
        self.target = target
        begin = BEGIN_AT / SHARPEST
        self.sharpness = nn.Parameter(torch.tensor(begin / (1 - begin)).log())
        if isinstance(target, Regression):
            self.head = nn.Linear(width, 1)
        if isinstance(target, Regression) or not target.exchangeable:
            self.keys = nn.Parameter(torch.randn(target.outputs, width) / width**0.5)
            self.log_weight = nn.Parameter(torch.zeros(target.outputs))

    def forward(self, queries: Tensor, recalled: Recalled) -> Tensor:
        """Compute outputs [U, N, C] of embedded queries [U, N, D]."""
        scale = SHARPEST * self.sharpness.sigmoid()
        cosine = F.normalize(queries, dim=-1) @ F.normalize(recalled.keys, dim=-1).transpose(1, 2)
        shares = attention(scale * cosine, recalled.mass.unsqueeze(1))
        if isinstance(self.target, Regression):
            low, high = self.target.low, self.target.high
            own: Tensor = (low + high) / 2 + (high - low) / 2 * self.head(queries)
            return shares[..., :1] * own + shares[..., 1:] @ recalled.labels[:, 1:].unsqueeze(-1)
        member = one_hot(recalled.labels, self.target.outputs)
        # Only a class without an example, of which theta knows nothing, is as unlikely as this.
        return (shares @ member).clamp(min=torch.finfo(shares.dtype).tiny).log()


class _SupportContext(nn.Module):
    """The embedding g of examples: an LSTM each way, which steps over places without an example."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.onward = nn.LSTMCell(width, width)
        self.backward = nn.LSTMCell(width, width)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """Embed x [U, S, D]; present [U, S, 1]."""
        if not x.shape[1]:
            return x
        back = _read_along(self.backward, x.flip(1), present.flip(1)).flip(1)
        return x + _read_along(self.onward, x, present) + back


class _QueryContext(nn.Module):
    """The embedding f of queries: an LSTM of some steps, which reads the support set before each."""

    def __init__(self, width: int, reads: int) -> None:
        super().__init__()
        self.reads = reads
        self.cell = nn.LSTMCell(2 * width, width)

    def forward(self, x: Tensor, keys: Tensor, mass: Tensor) -> Tensor:
        """Embed x [U, N, D] by keys [U, M, D] of mass [U, M]."""
        h, c = x, torch.zeros_like(x).flatten(0, 1)
        for _ in range(self.reads):
            scores = h @ keys.transpose(1, 2) / x.shape[-1] ** 0.5
            read = attention(scores, mass.unsqueeze(1)) @ keys
            step, c = self.cell(torch.cat([x, read], -1).flatten(0, 1), (h.flatten(0, 1), c))
            h = x + step.view_as(x)
        return h


def layout(problem: Problem, width: int) -> dict[str, torch.Size]:
    """Shapes of the fast parameters of a learner that keeps its examples, of so many as are expected."""
    capacity = bucket_of(problem.support)
    return {
        "keys": torch.Size((capacity, width)),
        "labels": torch.Size((capacity,)),
        "mass": torch.Size((capacity,)),
    }


def examples_of(support: Batch) -> tuple[Tensor, Tensor]:
    """Where there are examples [U, S, 1], and their rows, zero elsewhere: padding may hold anything, NaN included."""
    present = (support.weight > 0).unsqueeze(-1)
    return present, support.x.where(present, 0.0)


def kept(shapes: Mapping[str, torch.Size], keys: Tensor, support: Batch) -> Fast:
    """Fast parameters out of keys [U, S, D], zero where there is no example; of more than fit the shapes, all."""
    present = support.weight > 0
    spare = max(0, shapes["mass"].numel() - keys.shape[1])
    return {
        "keys": F.pad(keys.where(present.unsqueeze(-1), 0.0), (0, 0, 0, spare)),
        "labels": F.pad(support.y.where(present, 0.0), (0, spare)),
        "mass": F.pad(mass_of(support), (0, spare)),
    }


def recall(theta: Params, fast: Fast) -> Recalled:
    """Join fast parameters to the keys that theta brings, where it brings any."""
    found = Recalled(fast["keys"], fast["labels"], fast["mass"])
    if "keys" not in theta:
        return found
    tasks, keys = len(found.mass), theta["keys"]
    labels = torch.arange(len(keys), device=keys.device, dtype=keys.dtype)
    own = Recalled(keys, labels, theta["log_weight"].exp())
    pairs = zip(own, found, strict=True)
    return Recalled(*(torch.cat([mine.expand(tasks, *mine.shape), its], 1) for mine, its in pairs))


def attention(scores: Tensor, mass: Tensor) -> Tensor:
    """Softmax of scores [..., N, M], each thing counted `mass` [..., 1, M] times; 0 where all count 0 times."""
    absent = mass == 0
    counted = scores + mass.masked_fill(absent, 1.0).log()
    return counted.masked_fill(absent, torch.finfo(scores.dtype).min).softmax(-1) * ~absent


def _read_along(cell: nn.LSTMCell, x: Tensor, present: Tensor) -> Tensor:
    """States [U, S, D] of an LSTM after each place of x [U, S, D]; without an example the state stays."""
    h = c = torch.zeros_like(x[:, 0])
    states = []
    for place in range(x.shape[1]):
        stepped = cell(x[:, place], (h, c))
        h, c = (torch.where(present[:, place], new, old) for new, old in zip(stepped, (h, c), strict=True))
        states.append(h)
    return torch.stack(states, 1)

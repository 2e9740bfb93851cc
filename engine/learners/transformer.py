"""A transformer over the support set, which queries look into: attention among examples, then from query to example.

    A(q, T) = softmax(Q(q) K(T)' / sqrt(d)) V(T);   t_i <- t_i + A(t_i, T), among examples;   q <- q + A(q, T)

each followed by a small network (Vaswani et al. 2017, arXiv:1706.03762, equation 1; cross-attention from query to
support as in Kim et al. 2019, arXiv:1901.05761, section 3; normalised before each step as in Xiong et al. 2020,
arXiv:2002.04745). Three choices make it learn from few episodes. What is read out are labels, by the attention of
matching networks between finished query and finished examples, so nothing need learn to copy a label. Every residual
branch begins at zero, so theta begins as a matching network without context where classes are numbered anew in each
episode. And examples know those of their own class by a bias of the attention among them, not by a name: rename the
classes of an episode, and the outputs are renamed with them. A label is part of a token only where a class is the
same in every task, or a label a number.

Not SNAIL, which reads examples as a sequence; not Matching Networks in full context, whose context is an LSTM's; not
TabPFN (Hollmann et al. 2023, arXiv:2207.01848), where labels enter as numbers and leave by a head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from engine.learners.base import below
from engine.learners.embedding import EmbeddingLearner
from engine.learners.labels import mass_of
from engine.learners.matching import Match, Recalled, attention, examples_of, kept, layout, recall
from engine.problem import Problem
from engine.targets import Classification, Regression
from engine.types import Batch, EngineError, Fast, Params


class TransformerLearner(EmbeddingLearner):
    """Fast parameters are the finished tokens: an example is `width` numbers, a label and a mass.

    Their keys and values in each of `depth` blocks, which queries compute anew, would be 2 * `depth` times as many
    numbers. The order of the examples does not matter.
    """

    def __init__(self, problem: Problem, width: int = 64, depth: int = 2, heads: int = 4) -> None:
        if depth < 1 or heads < 1 or width % heads:
            raise EngineError(
                f"depth and heads must be positive and heads divide width, got {depth}, {heads} and {width}"
            )
        self.depth, self.heads = depth, heads
        super().__init__(problem, width)
        self.fast_shapes = layout(problem, width)

    def own_modules(self) -> nn.Module:
        """Build what theta holds beside encoder and network, freshly initialised."""
        target, size = self.target, (self.width, self.depth, self.heads)
        return nn.ModuleDict(
            {
                "examples": _Examples(target, *size),
                "queries": _Queries(*size),
                "match": Match(target, self.width),
            }
        )

    def fast_of(self, meta: Params, support: Batch) -> Fast:
        """Compute fast parameters of U tasks from support x [U, S, W]."""
        present, x = examples_of(support)
        y = support.y.where(present.squeeze(-1), 0.0)
        tokens = self._run("2.examples", meta, self.embed(meta, x), y, mass_of(support))
        return kept(self.fast_shapes, tokens, support)

    def outputs_of(self, meta: Params, fast: Fast, x: Tensor) -> Tensor:
        """Compute outputs [U, N, C] of U tasks for x [U, N, W]: log-probabilities, or values."""
        recalled = recall(below("2.match.", meta), fast)
        queries = self._run("2.queries", meta, self.embed(meta, x), recalled)
        return self._run("2.match", meta, queries, recalled)

    def _run(self, part: str, meta: Params, *inputs: Tensor | Recalled) -> Tensor:
        module = self._model.get_submodule(part)
        return functional_call(module, below(f"{part}.", meta), inputs)  # type: ignore[no-any-return]


class _Examples(nn.Module):
    """Attention among the examples of a task."""

    def __init__(self, target: Classification | Regression, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.target = target
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        if isinstance(target, Regression):
            self.label: nn.Module = nn.Linear(1, width)
        else:
            self.label = nn.Identity() if target.exchangeable else nn.Embedding(target.outputs, width)
            self.alike = nn.Parameter(torch.zeros(depth, heads, 1, 1))

    def forward(self, x: Tensor, y: Tensor, mass: Tensor) -> Tensor:
        """Finished tokens [U, S, D] of embedded examples x [U, S, D] with labels y [U, S]."""
        tokens = self._labelled(x, y)
        for block, bias in zip(self.blocks, self._biases(y), strict=True):
            tokens = block(tokens, tokens, mass, bias)
        return tokens

    def _labelled(self, x: Tensor, y: Tensor) -> Tensor:
        if isinstance(self.target, Regression):
            low, high = self.target.low, self.target.high
            labels: Tensor = self.label(((2 * y - low - high) / (high - low)).unsqueeze(-1))
            return x + labels
        return x if self.target.exchangeable else x + self.label(y.long())

    def _biases(self, y: Tensor) -> Tensor:
        """What each block adds to the scores [U, heads, S, S] of pairs of one class; of numbers, nothing."""
        if isinstance(self.target, Regression):
            return y.new_zeros(len(self.blocks))
        return self.alike.unsqueeze(1) * (y.unsqueeze(1) == y.unsqueeze(2)).unsqueeze(1)


class _Queries(nn.Module):
    """Attention from each query to the finished examples, and to what theta brings."""

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))

    def forward(self, x: Tensor, recalled: Recalled) -> Tensor:
        """Finished queries [U, N, D] of embedded ones."""
        for block in self.blocks:
            x = block(x, recalled.keys, recalled.mass, x.new_zeros(()))
        return x


class _Block(nn.Module):
    """Attention to tokens, then a small network; each adds to what it is given, and at first nothing."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.norm_tokens = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.joined = _nothing_at_first(nn.Linear(width, width))
        last = _nothing_at_first(nn.Linear(2 * width, width))
        self.network = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.ReLU(), last)

    def forward(self, x: Tensor, tokens: Tensor, mass: Tensor, bias: Tensor) -> Tensor:
        """Move x [U, N, D] by tokens [U, M, D] of mass [U, M]; a bias adds to the scores [U, heads, N, M]."""
        query = self._by_head(self.query(self.norm(x)))
        key, value = map(self._by_head, self.key_value(self.norm_tokens(tokens)).chunk(2, -1))
        scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5 + bias
        read = attention(scores, mass[:, None, None]) @ value
        x = x + self.joined(read.transpose(1, 2).flatten(2))
        return x + self.network(x)  # type: ignore[no-any-return]

    def _by_head(self, x: Tensor) -> Tensor:
        """Cut [U, N, D] into [U, heads, N, D / heads]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # type: ignore[no-any-return]


def _nothing_at_first(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer

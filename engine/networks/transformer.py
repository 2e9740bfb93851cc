"""A transformer over the numbers of a row, for features that matter in combination.

Each number becomes a token, x_j * w_j + b_j; one more token, [CLS], gathers what the others say, and the head
reads it (FT-Transformer, Gorishniy, Rubachev, Khrulkov, Babenko 2021, arXiv:2106.11959, section 3.3; norms
before attention and before the feed-forward layer, no dropout). Attention is within one example. Not the
learner with cross-attention from queries to a support set.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.types import EngineError


def transformer(inputs: int, outputs: int, width: int = 32, depth: int = 2, heads: int = 4) -> nn.Module:
    """Build `depth` layers of `heads` on tokens of `width` numbers; the cost grows with the square of `inputs`."""
    if width % heads:
        raise EngineError(f"width must be a multiple of heads, got {width} and {heads}")
    layers = [_Layer(width, heads) for _ in range(depth)]
    read = (_FirstToken(), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, outputs))
    return nn.Sequential(_Tokens(inputs, width), *layers, *read)


class _Tokens(nn.Module):
    """Rows [..., inputs] to tokens [..., 1 + inputs, width], [CLS] first."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        bound = width**-0.5
        self.weight = nn.Parameter(torch.empty(inputs, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(1 + inputs, width).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Rows [..., inputs] to tokens [..., 1 + inputs, width]."""
        numbers = x.unsqueeze(-1) * self.weight
        # The bias of [CLS] is the token itself.
        return torch.cat([torch.zeros_like(numbers[..., :1, :]), numbers], dim=-2) + self.bias


class _Layer(nn.Module):
    """Attention and a feed-forward layer, each added to tokens [..., T, width]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attend = nn.Sequential(nn.LayerNorm(width), _Attention(width, heads))
        self.feed = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [..., T, width]."""
        attended: Tensor = x + self.attend(x)
        fed: Tensor = attended + self.feed(attended)
        return fed


class _Attention(nn.Module):
    """Each token asks all tokens of its row (Vaswani et al. 2017, arXiv:1706.03762, equation 1).

    Written out, because torch's fused attention has no second derivative on a CPU.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(width, 3 * width)
        self.join = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [..., T, width], each a mean of all by what they ask and answer."""
        parts = self.project(x).unflatten(-1, (3, self.heads, -1)).movedim(-3, 0)
        query, key, value = parts.transpose(-3, -2)
        weights = torch.softmax(query @ key.transpose(-2, -1) * key.shape[-1] ** -0.5, dim=-1)
        joined: Tensor = self.join((weights @ value).transpose(-3, -2).flatten(-2))
        return joined


class _FirstToken(nn.Module):
    """Tokens [..., T, width] to [CLS] [..., width]."""

    def forward(self, x: Tensor) -> Tensor:
        """Take the first token."""
        return x[..., 0, :]

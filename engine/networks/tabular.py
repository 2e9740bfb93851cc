"""A residual network for encoded rows: deeper than a multilayer perceptron without being harder to train.

    x = Linear(row);   x = x + Linear(ReLU(Linear(Norm(x))))   for each block;   outputs = Linear(ReLU(Norm(x)))

("ResNet" of Gorishniy, Rubachev, Khrulkov, Babenko 2021, arXiv:2106.11959, section 3.2, with layer in place
of batch normalisation and without dropout.) Categories are embedded by the encoder, before the network.
"""

from __future__ import annotations

from torch import Tensor, nn

from engine.networks.norms import Norm, row_norm


def tabular(
    inputs: int, outputs: int, width: int = 64, blocks: int = 2, expansion: int = 2, norm: Norm = "layer"
) -> nn.Module:
    """Build `blocks` residual blocks on `width` numbers, each `expansion` times as wide inside."""
    inside = width * expansion
    body = [_Residual(width, inside, norm) for _ in range(blocks)]
    return nn.Sequential(
        nn.Linear(inputs, width), *body, row_norm(norm, width), nn.ReLU(), nn.Linear(width, outputs)
    )


class _Residual(nn.Module):
    """Rows [..., width], and what a block adds to them."""

    def __init__(self, width: int, inside: int, norm: Norm) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            row_norm(norm, width), nn.Linear(width, inside), nn.ReLU(), nn.Linear(inside, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Rows [..., width], and what the branch makes of them."""
        added: Tensor = self.branch(x)
        return x + added

"""ResNet-12: the deeper network that few-shot learning of images is compared on.

Four residual blocks of three 3x3 convolutions, each block halving the image (Oreshkin, Rodriguez, Lacoste
2018, TADAM, arXiv:1805.10123, section 3.1; widths and leaky ReLU of 0.1 as in Lee et al. 2019, MetaOptNet,
arXiv:1904.03758, without its DropBlock: a network here draws no random numbers). With squeeze-and-excitation
(Hu, Shen, Sun 2018, arXiv:1709.01507, section 3) a block weighs its channels by what the whole image shows.
The maximum over 2x2 is taken before the leaky ReLU, which it commutes with.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from engine.networks.images import ImageNetwork, shape_of
from engine.networks.norms import Norm, image_norm

SLOPE = 0.1
REDUCTION = 16
"""Channels for each number that squeeze-and-excitation squeezes an image into."""


def resnet12(
    inputs: int,
    outputs: int,
    widths: Sequence[int] = (64, 160, 320, 640),
    norm: Norm = "layer",
    excitation: bool = False,
) -> nn.Module:
    """Build for square images, grey or of three colours, flattened channel by channel; a block for each width."""
    shape = shape_of(inputs, smallest=2 ** len(widths))
    blocks = [
        _Residual(before, after, norm, excitation) for before, after in pairwise((shape.channels, *widths))
    ]
    body = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1))
    return ImageNetwork(shape, body, widths[-1], outputs)


class _Residual(nn.Module):
    """Images [N, channels, H, W] to [N, width, H // 2, W // 2]."""

    def __init__(self, channels: int, width: int, norm: Norm, excitation: bool) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *_convolved(channels, width, 3, norm),
            nn.LeakyReLU(SLOPE),
            *_convolved(width, width, 3, norm),
            nn.LeakyReLU(SLOPE),
            *_convolved(width, width, 3, norm),
            *([_Excitation(width)] if excitation else []),
        )
        self.shortcut = nn.Sequential(*_convolved(channels, width, 1, norm))
        self.pool = nn.Sequential(nn.MaxPool2d(2), nn.LeakyReLU(SLOPE))

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, channels, H, W] to [N, width, H/2, W/2]."""
        pooled: Tensor = self.pool(self.branch(x) + self.shortcut(x))
        return pooled


def _convolved(channels: int, width: int, kernel: int, norm: Norm) -> list[nn.Module]:
    # The shift of the norm stands for the bias.
    return [nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False), image_norm(norm, width)]


class _Excitation(nn.Module):
    """Squeeze-and-excitation: each channel times a weight in (0, 1) read off all channels' means."""

    def __init__(self, width: int) -> None:
        super().__init__()
        squeezed = max(1, width // REDUCTION)
        self.weigh = nn.Sequential(
            nn.Linear(width, squeezed), nn.ReLU(), nn.Linear(squeezed, width), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, width, H, W], weighed."""
        weight: Tensor = self.weigh(x.mean((-2, -1)))
        return x * weight[..., None, None]

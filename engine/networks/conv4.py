"""Conv-4: the network that few-shot learning of images is compared on.

Four blocks of a 3x3 convolution of 64 filters, normalisation, ReLU and a 2x2 maximum (Vinyals et al. 2016,
arXiv:1606.04080, section 4.1; Snell, Swersky, Zemel 2017, arXiv:1703.05175, section 3). The papers normalise
over the batch, and so transductively; see `engine.networks.norms`. The maximum is taken before ReLU, not after:
the two commute, and four times less is left to rectify.

`strided` convolutions halve the image themselves, without a maximum, at a quarter of the work: the network of
Finn, Abbeel, Levine 2017 (arXiv:1703.03400, section 5.2) for Omniglot, but for its mean over what is left of
the image.

Where each task has its own filters (`adapts = "all"`), vmap makes them one grouped convolution. Forward and
backward for 8 tasks of 10 images of 28x28, on one thread of an AMD EPYC 9005: 69 ms so, 67 ms task by task,
131 ms unfolded into batched matrix products; with second derivatives 195, 200 and 381 ms.
"""

from __future__ import annotations

from math import ceil

from torch import nn

from engine.networks.heads import Head, last
from engine.networks.images import ImageNetwork, Precision, shape_of
from engine.networks.norms import Norm, image_norm
from engine.types import EngineError

BLOCKS = 4


def conv4(
    inputs: int,
    outputs: int,
    width: int = 64,
    norm: Norm = "layer",
    precision: Precision = "float32",
    strided: bool = False,
    head: Head = "random",
) -> nn.Module:
    """Build for square images, grey or of three colours, flattened channel by channel; `width` filters a block.

    Raises:
        EngineError: the images are too small, or are normalised one number at a time, which leaves nothing of it.

    """
    shape = shape_of(inputs, smallest=2**BLOCKS)
    blocks = [_block(width if block else shape.channels, width, norm, strided) for block in range(BLOCKS)]
    blocks[-1][-1] = last(head, blocks[-1][-1])
    left = ceil(shape.side / 2**BLOCKS) if strided else shape.side >> BLOCKS
    if strided and left == 1 and norm == "instance":
        raise EngineError(
            f"norm 'instance' has one pixel left to normalise of images of side {shape.side}; use another norm"
        )
    return ImageNetwork(shape, nn.Sequential(*blocks), width * left**2, outputs, precision, head)


def strided_conv4(inputs: int, outputs: int) -> nn.Module:
    """Build what gradient steps learn from fastest: strided, normalised in groups, its head beginning at zero."""
    return conv4(inputs, outputs, norm="group", strided=True, head="zero")


def _block(channels: int, width: int, norm: Norm, strided: bool) -> nn.Sequential:
    convolution = nn.Conv2d(channels, width, 3, stride=2 if strided else 1, padding=1)
    maximum = [] if strided else [nn.MaxPool2d(2)]
    return nn.Sequential(convolution, image_norm(norm, width), *maximum, nn.ReLU())

"""What networks of images share: rows in, a convolutional body, a linear head.

An image is a row of channels x side x side numbers, channel by channel, as every example is a row.
"""

from __future__ import annotations

from math import isqrt
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from engine.networks.heads import Head, linear
from engine.types import EngineError

Precision = Literal["float32", "bfloat16"]

CHANNELS = (1, 3)


class ImageShape(NamedTuple):
    """Channels, and side of the square."""

    channels: int
    side: int


def shape_of(inputs: int, smallest: int) -> ImageShape:
    """Shape of the grey or colour images that `inputs` numbers hold: no square is three squares.

    Raises:
        EngineError: they hold neither, or images of a side below `smallest`, what the body halves to 1.

    """
    found = [ImageShape(channels, isqrt(inputs // channels)) for channels in CHANNELS]
    fitting = [shape for shape in found if inputs and shape.channels * shape.side**2 == inputs]
    if not fitting:
        raise EngineError(
            f"{inputs} inputs are no square images of 1 or 3 channels; scale the images to squares before they "
            "are encoded"
        )
    (shape,) = fitting
    if shape.side < smallest:
        raise EngineError(
            f"images of side {shape.side} are too small: this network halves them, from {smallest} on"
        )
    return shape


class ImageNetwork(nn.Module):
    """Rows [..., channels * side * side] through `body` [N, C, h, w] and a head, to outputs [..., outputs].

    The body computes in `precision`: "bfloat16" is twice as fast where the processor multiplies such numbers,
    for offline training: it rounds so coarsely that a task without examples no longer predicts what theta does.
    """

    def __init__(
        self,
        shape: ImageShape,
        body: nn.Sequential,
        features: int,
        outputs: int,
        precision: Precision = "float32",
        head: Head = "random",
    ) -> None:
        super().__init__()
        if precision not in ("float32", "bfloat16"):
            raise EngineError(f"precision must be 'float32' or 'bfloat16', got {precision!r}")
        self.in_bfloat16 = precision == "bfloat16"
        self.shape = (shape.channels, shape.side, shape.side)
        self.body = body
        self.head = linear(head, features, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Compute outputs, each image by itself."""
        images = ChannelsLast.apply(x.reshape(-1, *self.shape))  # type: ignore[no-untyped-call]
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.in_bfloat16):
            features = self.body(images)
        outputs: Tensor = self.head(features.flatten(1).to(x.dtype))
        return outputs.view(*x.shape[:-1], self.head.out_features)


class ChannelsLast(torch.autograd.Function):
    """The same images with channels innermost in memory, on a CPU and outside `torch.func.vmap`; else as they are.

    The whole network follows the layout of its input, and is half as fast again on a CPU with channels
    innermost: for Conv-4, forward and backward, 2,000 images of 28x28 a second on one thread instead of 1,350
    (with instance normalisation, 1,200 instead of 1,400). Inside vmap, group normalisation refuses that
    layout, and convolutions with weights of each task's own are grouped ones, which do not gain by it.
    """

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        """Copy: of one channel, `contiguous` would leave strides that say channels first."""
        return x.clone(memory_format=torch.channels_last if x.is_cpu else torch.contiguous_format)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        """Keep nothing: the derivative is the identity."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        """Pass the derivative on."""
        return gradient

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None], x: Tensor) -> tuple[Tensor, int | None]:  # noqa: ARG004
        """Leave the layout to vmap."""
        return x, in_dims[0]

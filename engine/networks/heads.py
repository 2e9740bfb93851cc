"""The last layer of a network, as a choice: where gradient steps on it set out from.

    random   the layer below rectified, weights drawn as `torch.nn.Linear` draws them
    zero     the layer below only normalised, weights and biases zero

From zero, the first step points each class's weights at what its examples' features have that the others' have
not: a nearest-mean classifier, however the classes are numbered, which random weights would first have to forget
(Ye and Chao 2022, arXiv:2106.16245, section 4, start all classes alike for that reason). Features of one length
let one step size fit head and body. For few-shot learning by gradient steps; nothing to choose where a network
embeds, or is trained on one task.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from engine.types import EngineError

Head = Literal["random", "zero"]


def last(head: Head, rectifier: nn.Module) -> nn.Module:
    """What stands between the last normalisation and the head."""
    if head not in ("random", "zero"):
        raise EngineError(f"head must be 'random' or 'zero', got {head!r}")
    return rectifier if head == "random" else nn.Identity()


def linear(head: Head, features: int, outputs: int) -> nn.Linear:
    """The head itself, from [..., features] to [..., outputs]."""
    layer = nn.Linear(features, outputs)
    if head == "zero":
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return layer

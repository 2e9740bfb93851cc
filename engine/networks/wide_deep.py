"""Wide and deep: a linear model of every feature beside a network, whose outputs are added.

    outputs = b + one weight a class for each category's bucket + W numbers + network(dense row)

(Cheng et al. 2016, arXiv:1606.07792, equation 3.) Everything begins at zero, the network's last layer too: theta
begins as an online linear model, which learns from an event's first occurrence, and the network adds to it what
is not linear. The weights of buckets come from the front end, which looks them up.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Linear(nn.Module):
    """Weights of numbers, and a bias; from zero, and possibly of no numbers at all."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs [..., C] of x [..., inputs]."""
        return F.linear(x, self.weight, self.bias)


class WideAndDeep(nn.Module):
    """Rows [..., width + C] to outputs [..., C]: of each row the numbers come first, the wide sums last."""

    def __init__(self, network: nn.Module, numbers: int, width: int, outputs: int) -> None:
        super().__init__()
        self.numbers, self.width = numbers, width
        self.network = network
        self.linear = Linear(numbers, outputs)
        last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1:]
        for head in last if all(layer.out_features == outputs for layer in last) else ():
            nn.init.zeros_(head.weight)
            if head.bias is not None:
                nn.init.zeros_(head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs [..., C]."""
        dense, wide = x[..., : self.width], x[..., self.width :]
        outputs: Tensor = wide + self.linear(dense[..., : self.numbers]) + self.network(dense)
        return outputs

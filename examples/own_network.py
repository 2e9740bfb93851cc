"""A network of one's own: any function of (inputs, outputs) that returns a module of torch.

Tasks are rings: a point is inside or outside of a radius that each task has for itself. A network that squares its
inputs knows rings from the start; the default one has to learn them.
"""

import numpy as np
import torch
from torch import nn

from reptide import Classification, Numeric, Online


class Squares(nn.Module):
    """Numbers, and their squares beside them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, F] to [N, 2F]."""
        return torch.cat([x, x * x], dim=1)


def network(inputs: int, outputs: int) -> nn.Module:
    """No batch normalisation, which would mix tasks; the head, a `Linear`, comes last."""
    return nn.Sequential(Squares(), nn.Linear(2 * inputs, outputs))


served: dict[str, float] = {}
for name, chosen in {"the default network": None, "one that squares": network}.items():
    draws = np.random.default_rng(2)
    model = Online(
        [Numeric("x"), Numeric("y")],
        Classification(("inside", "outside")),
        settings={"outer.every": 256, "inner.lr": 0.05, "outer.lr": 0.02},
        network=chosen,
    )
    for point in range(400):
        task, (x, y) = point % 4, draws.normal(size=2).tolist()
        model.predict_one(task, {"x": x, "y": y}, id=point, at=point)
        inside = x * x + y * y < 1 + 0.4 * task
        model.learn_one(task, "inside" if inside else "outside", id=point, at=point)
    loss = model.report().loss
    served[name] = loss["served"]
    print(f"{name}: loss {served[name]:.3f} as served, {loss['base']:.3f} of the base rate")

"""A learner of one's own: embeddings come from theta, and a task solves a ridge regression on them, exactly.

Bertinetto et al. 2019 (arXiv:1805.08136). `fast_of` is what a task leaves behind of its examples, `outputs_of` what
it predicts with that; gradients of theta go through both. Beside it: prototypes, and no learning at all.
"""

from typing import Any

import numpy as np
import torch

from reptide import EmbeddingLearner, FewShot

WAYS, SHOTS, EACH, SEEN, KINDS = 5, 2, 10, 80, 100


class Ridge(EmbeddingLearner):
    """Class scores [U, Q, C] are linear in the embedding [U, Q, D], by the weights that fit the support set best."""

    def fast_of(self, meta: Any, support: Any) -> dict[str, torch.Tensor]:
        """Weights [U, D, C] in closed form; an example of weight 0 is padding."""
        present = (support.weight > 0).float().unsqueeze(-1)
        z = self.embed(meta, support.x) * present
        classes = torch.arange(self.target.outputs, device=z.device)
        y = (support.y.unsqueeze(-1) == classes).float() * present
        ridge = torch.eye(self.width, device=z.device)
        return {"weights": torch.linalg.solve(z.mT @ z + ridge, z.mT @ y)}

    def outputs_of(self, meta: Any, fast: Any, x: torch.Tensor) -> torch.Tensor:
        """Scores, on the scale of logits."""
        return 5 * self.embed(meta, x) @ fast["weights"]


draws = np.random.default_rng(8)
kinds = np.repeat(np.arange(KINDS), EACH)
telling, other = draws.normal(size=(KINDS, 4))[kinds], 3 * draws.normal(size=(len(kinds), 12))
examples = np.hstack([telling + 0.3 * draws.normal(size=telling.shape), other]) @ draws.normal(size=(16, 16))
seen = kinds < SEEN
tasks = [draws.choice(np.arange(SEEN, KINDS), WAYS, replace=False) for _ in range(20)]


def split(task: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the support examples of a task's kinds are, SHOTS of each, and where the others are."""
    support = (task[:, None] * EACH + np.arange(SHOTS)).ravel()
    return support, np.setdiff1d(np.flatnonzero(np.isin(kinds, task)), support)


def nearest_mean(task: np.ndarray) -> float:
    """Accuracy of the nearest mean of the numbers as they are."""
    support, queries = split(task)
    means = examples[support].reshape(WAYS, SHOTS, -1).mean(axis=1)
    apart = np.square(examples[queries][:, None] - means).sum(axis=2)
    return float((task[apart.argmin(axis=1)] == kinds[queries]).mean())


accuracy = {"nearest mean": float(np.mean([nearest_mean(task) for task in tasks]))}
settings = {"episodes.rounds": 100, "episodes.every": 50, "episodes.tasks": 8, "outer.lr": 0.003}
for name, learner in {"ridge": Ridge, "prototype": "prototype"}.items():
    few = FewShot(learner, ways=WAYS, shots=SHOTS, settings={**settings, "episodes.queries": 5})
    few.fit(examples[seen], kinds[seen])
    right = []
    for support, queries in map(split, tasks):
        right.append(few.adapt(examples[support], kinds[support]).score(examples[queries], kinds[queries]))
    accuracy[name] = float(np.mean(right))
print(
    f"right on {WAYS} kinds that were not trained on:",
    {name: f"{share:.0%}" for name, share in accuracy.items()},
)

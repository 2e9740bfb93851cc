"""Outer rules for networks that normalise by batch, in whose statistics a padded example would count as any other.

What evaluation does task by task (`engine.evaluation.episodic.scoring`) is here done by size: tasks of as many
support and query examples are one call, so episodes that are all as large are trained on as they always were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.batches import by_size
from engine.learners.base import Learner
from engine.outer.base import OuterRule, Report, judged
from engine.traced import unrecorded
from engine.types import Episodes, Params


@dataclass(frozen=True)
class Unpadded:
    """An `OuterRule`: another that averages over tasks, called with tasks of one size after another."""

    rule: OuterRule

    def __call__(self, learner: Learner, meta: Params, episodes: Episodes) -> tuple[Params, Report]:
        """Pseudo-gradient and report, the means over all judged episodes."""
        sizes = by_size(episodes)
        counts = [int(judged(part).sum()) for part in sizes]
        kept = [(n, part) for n, part in zip(counts, sizes, strict=True) if n] or [(1, sizes[0])]
        if len(kept) == 1:
            return self.rule(learner, meta, kept[0][1])
        # Sizes come in any number, and hardly one as often as recording it costs.
        plain = unrecorded(learner)
        return _mean([(n / sum(counts), *self.rule(plain, meta, part)) for n, part in kept])


def _mean(found: Sequence[tuple[float, Params, Report]]) -> tuple[Params, Report]:
    shares, moves, reports = zip(*found, strict=True)
    pairs = [*zip(shares, reports, strict=True)]
    report = Report(
        sum(share * one.query_loss_before for share, one in pairs),
        sum(share * one.query_loss_after for share, one in pairs),
    )
    names = moves[0]
    return {
        name: sum(share * one[name] for share, one in zip(shares, moves, strict=True)) for name in names
    }, report

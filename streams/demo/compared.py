"""What the deployment of the demonstration served, beside what the embedded one did: figures, and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from engine.evaluation.prequential.report import ReportDict
from engine.targets import Classification, Regression
from engine.types import SERVED
from streams.demo import embedded as demo
from streams.logs.output import OutputFile
from streams.pages.run.evaluation import evaluate, extra_of, read_extras, scores_of

BOUND = 0.002
"""How far log loss and AUC may be from the embedded run's."""


def scores_in(folder: Path) -> closing[OutputFile]:
    """The scores of a run."""
    return closing(OutputFile(folder / "outputs" / "scores.jsonl"))


def evaluated(target: Classification | Regression, out: Path, embedded: Path) -> ReportDict:
    """One report over what was served here, what the embedded run served, and its baselines."""
    since_s = demo.REPORTED_FROM_S
    with scores_in(out) as ours, scores_in(embedded / "ours") as theirs:
        served = extra_of(("embedded",), (SERVED,), scores_of(theirs, target, since_s))
        extras = (served, *read_extras(embedded / demo.BASELINES))
        return evaluate(target, scores_of(ours, target, since_s), extras)


def gaps(evaluation: ReportDict) -> dict[str, float]:
    """What was served here minus what the embedded run served."""
    here, there = evaluation["predictors"]["served"], evaluation["predictors"]["embedded"]
    return {
        "auc": (here["auc"] or 0.0) - (there["auc"] or 0.0),
        "log_loss": (here["log_loss"] or 0.0) - (there["log_loss"] or 0.0),
    }


def verdict(evaluation: ReportDict, differing: Sequence[str], rows: int) -> str:
    """Whether what was served is close enough, and rows that were folded again are the same."""
    far = gaps(evaluation)
    close = all(abs(gap) <= BOUND for gap in far.values())
    same = f"all {rows} rows are the same, bit for bit"
    if differing:
        same = f"{', '.join(differing)} of {rows} rows differ"
    return (
        f"served - embedded: log loss {far['log_loss']:+.4f}, AUC {far['auc']:+.4f} "
        f"({'within' if close else 'NOT within'} {BOUND})\n"
        f"folded again under the recorded adoptions: {same}"
    )

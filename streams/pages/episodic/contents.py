"""What the page of an episodic evaluation is made of, and how its figures are found again."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from engine.evaluation.episodic.report import EpisodicDict, Judgement, Metric, Mode, Tasks


class EpisodicPage(TypedDict):
    """Everything the page shows: plain dicts, so that it can be kept as JSON and drawn again later."""

    title: str
    source: str
    """What was evaluated on, as the user named it."""
    evaluation: EpisodicDict
    """`engine.evaluation.episodic.report.EpisodicReport.as_dict()`."""
    command: NotRequired[str]
    machine: NotRequired[str]
    finished_s: NotRequired[float]
    settings: NotRequired[str]
    versions: NotRequired[dict[str, str]]


def shots_of(evaluation: EpisodicDict) -> list[int]:
    """Return the shots that were judged, in the order they were given."""
    return list(dict.fromkeys(size["shots"] for size in evaluation["sizes"]))


def judgements(
    evaluation: EpisodicDict,
    shots: int,
    contender: str,
    metric: Metric | None = None,
    *,
    tasks: Tasks = "held out",
    mode: Mode = "inductive",
) -> list[Judgement]:
    """Return what a contender was found to be, by rising steps; under the main metric unless another is named."""
    wanted = shots, contender, metric or evaluation["metric"], tasks, mode
    return [
        j
        for j in evaluation["judgements"]
        if (j["shots"], j["contender"], j["metric"], j["tasks"], j["mode"]) == wanted
    ]


def headline(evaluation: EpisodicDict, shots: int, contender: str, metric: Metric | None = None) -> Judgement:
    """Return what a contender is judged by, on held-out tasks."""
    return judgements(evaluation, shots, contender, metric)[-1]

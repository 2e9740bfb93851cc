"""Findings of an episodic evaluation in words, the same on the page and in the terminal."""

from __future__ import annotations

from engine.evaluation.episodic.report import (
    MARGIN,
    MARGIN_ERROR,
    EpisodicDict,
    Figures,
    Gain,
    Gap,
    Metric,
    Size,
)
from streams.pages.episodic.contents import headline, shots_of
from streams.pages.kit.phrases import EN_DASH, count, number, percent, plural, signed

METRICS: dict[Metric, str] = {
    "accuracy": "accuracy",
    "log_loss": "log loss",
    "squared_error": "squared error",
}

CUSTOMARY = 600
"""Episodes that an interval customarily rests on."""


def value(metric: Metric, found: float | None) -> str:
    """Return a figure in its unit: '97.02%', '0.4375'."""
    return percent(found, 2) if metric == "accuracy" else number(found)


def with_interval(metric: Metric, figures: Figures | None) -> str:
    """Return a mean and how far its 95% interval reaches: '97.02% ± 0.34'."""
    if figures is None:
        return EN_DASH
    return f"{value(metric, figures['mean'])} ± {bare(metric, figures['high'] - figures['mean'])}"


def bare(metric: Metric, width: float) -> str:
    """Return a figure without its unit, of accuracies in points of a hundred: '97.02', '0.4375'."""
    return number(100 * width, 2) if metric == "accuracy" else number(width)


def change(metric: Metric, by: float) -> str:
    """Return a difference with its sign, of accuracies in points of a hundred: '+1.24', '−0.0113'."""
    scale, digits = (100, 2) if metric == "accuracy" else (1, 4)
    return signed(round(scale * by, digits) + 0.0, digits)  # no negative zero


def gain_interval(metric: Metric, gain: Gain) -> str:
    """Return the 95% interval of a difference."""
    return f"{change(metric, gain['low'])} to {change(metric, gain['high'])}"


def standing(metric: Metric, gain: Gain) -> int:
    """Return 1 where a contender is better than the reference beyond the interval, -1 where worse, 0 for a tie."""
    low, high = gain["low"], gain["high"]
    if metric != "accuracy":
        low, high = -high, -low
    return 1 if low > 0 else -1 if high < 0 else 0


def verdict(evaluation: EpisodicDict) -> str:
    """Return what the first contender is worth beside the reference, a sentence for each number of shots."""
    return " ".join(_verdict(evaluation, shots) for shots in shots_of(evaluation))


def warnings(evaluation: EpisodicDict) -> list[str]:
    """Return a sentence for each contender that is better on training tasks than on held-out ones."""
    parting: dict[str, list[Gap]] = {}
    for gap in evaluation["gaps"]:
        if gap["parts"]:
            parting.setdefault(gap["contender"], []).append(gap)
    return [_warning(evaluation["metric"], name, gaps) for name, gaps in parting.items()]


def rule(metric: Metric) -> str:
    """Return when training and held-out tasks are said to part."""
    margin = f"{100 * MARGIN:g} points" if metric == "accuracy" else f"{100 * MARGIN_ERROR:g}%"
    return (
        f"They are said to part where {METRICS[metric]} is better on training tasks beyond the 95% interval of the "
        f"difference and by more than {margin}. What learns nothing from training tasks shows how "
        "much harder the held-out ones are. Against memorising: more tasks, task augmentation, stopping earlier, a "
        "smaller network."
    )


def judged_on(size: Size) -> str:
    """Return what a figure rests on: '600 held-out episodes of 9 tasks'."""
    kind = "held-out" if size["tasks"] == "held out" else "training"
    episodes = f"{count(size['episodes'])} {kind} episodes"
    return episodes if size["drawn_from"] is None else f"{episodes} of {plural(size['drawn_from'], 'task')}"


def after(steps: int | None) -> str:
    """Return how far a contender had adapted."""
    return "in one pass" if steps is None else f"after {plural(steps, 'step')}"


def _verdict(evaluation: EpisodicDict, shots: int) -> str:
    metric, subject = evaluation["metric"], next(iter(evaluation["contenders"]))
    found = headline(evaluation, shots, subject)
    mean = with_interval(metric, found["figures"])
    said = f"With {plural(shots, 'shot')}, {METRICS[metric]} of {subject} is {mean}"
    gain = found["against_reference"]
    if gain is None:
        return f"{said}."
    word = {1: "better", 0: "a tie", -1: "worse"}[standing(metric, gain)]
    unit = " points" if metric == "accuracy" else ""
    difference = f"{change(metric, gain['value'])}{unit} against {evaluation['reference']}"
    return f"{said}, {difference}: {word} (95% interval {gain_interval(metric, gain)})."


def _warning(metric: Metric, name: str, gaps: list[Gap]) -> str:
    sides = ", ".join(
        f"{value(metric, gap['training'])} and {value(metric, gap['held_out'])} with {plural(gap['shots'], 'shot')}"
        for gap in gaps
    )
    return (
        f"{name} may have memorised its training tasks (meta-overfitting): {METRICS[metric]} on them and on "
        f"held-out tasks is {sides}."
    )

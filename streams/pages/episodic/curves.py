"""Adaptation curves: what each contender is worth after so many inner steps, with 95% bands."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from engine.evaluation.episodic.report import EpisodicDict, Figures, Metric
from streams.pages.episodic.contents import headline, judgements
from streams.pages.episodic.phrases import METRICS, after, value
from streams.pages.kit.charts import (
    Axis,
    Frame,
    Point,
    Readout,
    Tick,
    band,
    chart,
    dots,
    line,
    linear_axis,
    readouts,
)
from streams.pages.kit.markup import Markup, element, join
from streams.pages.kit.phrases import plural

COLOURS = 8
"""Contenders beyond so many share a colour with another."""

MOST_READ = 3
"""Contenders that a readout names, the best ones."""

NOTE = (
    "The same episodes for each line; the band is the 95% interval of the mean. Level, dashed lines are contenders "
    "that adapt in one pass."
)

Curve = list[tuple[float, Figures]]


def curves_figure(evaluation: EpisodicDict, shots: int) -> Markup:
    """One chart: inner steps across, the main metric up."""
    steps = evaluation["steps"]
    margin = max(0.04 * (steps[-1] - steps[0]), 0.1)
    ends = (steps[0] - margin, steps[-1] + margin)
    curves = {name: _curve(evaluation, shots, name, ends) for name in evaluation["contenders"]}
    drawn = {name: curve for name, curve in curves.items() if curve}
    if not drawn:
        return Markup()
    axis = Axis(*ends, [Tick(step, str(step)) for step in steps], "inner steps")
    frame = Frame(axis, _vertical(evaluation["metric"], drawn.values()))
    plane, marks = [], []
    for name, curve in drawn.items():
        style = colour(evaluation, name)
        low, middle, high = ([Point(x, f[at]) for x, f in curve] for at in ("low", "mean", "high"))
        one_pass = judgements(evaluation, shots, name)[-1]["steps"] is None
        plane += [band(frame, low, high, style), line(frame, middle, f"{style} once" if one_pass else style)]
        marks += [] if one_pass else [dots(frame, middle, style)]
    shown = readouts(frame, _readouts(evaluation, shots, ends))
    title = _title(evaluation, shots)
    plot = chart(frame, plane, [*marks, shown], title)
    caption = element("figcaption", element("h3", title), element("p", NOTE))
    return element("figure", caption, _legend(evaluation, drawn), plot, class_="tall")


def colour(evaluation: EpisodicDict, name: str) -> str:
    """Return the class that gives a contender its colour, the same in every chart."""
    return f"c{list(evaluation['contenders']).index(name) % COLOURS}"


def _curve(evaluation: EpisodicDict, shots: int, name: str, ends: tuple[float, float]) -> Curve:
    curve: Curve = []
    for found in judgements(evaluation, shots, name):
        at = ends if found["steps"] is None else (float(found["steps"]),)
        curve += [(x, found["figures"]) for x in at if found["figures"] is not None]
    return curve


def _vertical(metric: Metric, curves: Iterable[Curve]) -> Axis:
    values = [f[at] for curve in curves for _, f in curve for at in ("low", "high")]
    low, high = min(values), max(values)
    margin = 0.06 * (high - low)
    if metric != "accuracy":
        return linear_axis(low - margin, high + margin, METRICS[metric])
    scaled = linear_axis(100 * max(0.0, low - margin), 100 * min(1.0, high + margin), "accuracy (%)")
    return Axis(
        scaled.low / 100, scaled.high / 100, [Tick(t.at / 100, t.text) for t in scaled.ticks], scaled.label
    )


def _readouts(evaluation: EpisodicDict, shots: int, ends: tuple[float, float]) -> list[Readout]:
    """Strips about each number of steps."""
    steps = evaluation["steps"]
    cuts = [ends[0], *((a + b) / 2 for a, b in pairwise(steps)), ends[1]]
    return [
        Readout(low, high, _best_after(evaluation, shots, step))
        for step, (low, high) in zip(steps, pairwise(cuts), strict=True)
    ]


def _best_after(evaluation: EpisodicDict, shots: int, steps: int) -> str:
    metric = evaluation["metric"]
    means = {
        name: found["figures"]["mean"]
        for name in evaluation["contenders"]
        for found in judgements(evaluation, shots, name)
        if found["steps"] in (steps, None) and found["figures"] is not None
    }
    best = sorted(means, key=lambda name: means[name], reverse=metric == "accuracy")[:MOST_READ]
    return f"{after(steps)}: " + ", ".join(f"{name} {value(metric, means[name])}" for name in best)


def _title(evaluation: EpisodicDict, shots: int) -> str:
    """What the first contender and the reference come to."""
    metric = evaluation["metric"]
    ends = []
    for name in dict.fromkeys((next(iter(evaluation["contenders"])), evaluation["reference"])):
        found = headline(evaluation, shots, name)
        mean = found["figures"]["mean"] if found["figures"] else None
        ends.append(f"{name} {value(metric, mean)} {after(found['steps'])}")
    return f"{plural(shots, 'shot').capitalize()}: {', '.join(ends)}"


def _legend(evaluation: EpisodicDict, drawn: dict[str, Curve]) -> Markup:
    keys = (element("span", name, class_=f"key {colour(evaluation, name)}") for name in drawn)
    return element("p", join(keys), class_="legend")

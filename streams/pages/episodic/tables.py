"""The tables of the page: contenders beside the reference, every number of steps, training beside held-out tasks."""

from __future__ import annotations

from engine.evaluation.episodic.report import EpisodicDict, Gap, Judgement, Metric
from streams.pages.episodic.contents import headline, judgements
from streams.pages.episodic.phrases import (
    METRICS,
    after,
    change,
    gain_interval,
    standing,
    value,
    with_interval,
)
from streams.pages.kit.layout import table
from streams.pages.kit.markup import Markup, element, join
from streams.pages.kit.phrases import EN_DASH, count

STANDINGS = {1: "better", 0: "tie", -1: "worse"}

TRANSDUCTIVE = "transductive: the queries were predicted together, so the figure counts for nothing"


def contender_table(evaluation: EpisodicDict, shots: int) -> Markup:
    """What each contender is judged by."""
    main = evaluation["metric"]
    more: list[Metric] = ["log_loss"] if main == "accuracy" else []
    heads = [
        "contender",
        f"{METRICS[main]}, ± 95%",
        f"difference to {evaluation['reference']}",
        *(METRICS[metric] for metric in more),
        "5th percentile",
        "median",
        "95th",
    ]
    rows = []
    for name, note in evaluation["contenders"].items():
        found = headline(evaluation, shots, name)
        others = [headline(evaluation, shots, name, metric) for metric in more]
        rows.append(_row(name, f"{note + ', ' if note else ''}{after(found['steps'])}", found, others))
        for found in judgements(evaluation, shots, name, mode="transductive")[-1:]:
            others = [judgements(evaluation, shots, name, m, mode="transductive")[-1] for m in more]
            rows.append(_row(name, TRANSDUCTIVE, found, others))
    return table(heads, rows, texts=1)


def steps_table(evaluation: EpisodicDict, shots: int) -> Markup:
    """The main metric after every number of steps, of the contenders that take any."""
    metric, steps = evaluation["metric"], evaluation["steps"]
    found = {name: judgements(evaluation, shots, name) for name in evaluation["contenders"]}
    rows = [
        [name, *(with_interval(metric, j["figures"]) for j in row)]
        for name, row in found.items()
        if row[-1]["steps"] is not None
    ]
    if not rows:
        return Markup()
    drawn = table(["contender", *(after(step) for step in steps)], rows, texts=1)
    return element("details", element("summary", "After every number of steps"), drawn)


def gap_table(evaluation: EpisodicDict) -> Markup:
    """Every contender on training tasks and on held-out ones."""
    metric = evaluation["metric"]
    heads = ["contender", "shots", "held-out tasks", "training tasks", "better on training tasks by"]
    return table(heads, [_gap_row(metric, gap) for gap in evaluation["gaps"]], texts=1)


def _row(name: str, note: str, found: Judgement, others: list[Judgement]) -> list[str]:
    metric, figures = found["metric"], found["figures"]
    spread = [value(metric, figures[at]) if figures else EN_DASH for at in ("p5", "p50", "p95")]
    means = [value(j["metric"], j["figures"]["mean"] if j["figures"] else None) for j in others]
    described = join((element("b", name), element("small", note)))
    return [described, with_interval(metric, figures), _difference(found), *means, *spread]


def _difference(found: Judgement) -> Markup:
    gain, metric = found["against_reference"], found["metric"]
    if gain is None:
        return Markup()
    stand = standing(metric, gain)
    return join(
        (
            element("span", change(metric, gain["value"]), class_="tie" if stand == 0 else "apart"),
            element("small", gain_interval(metric, gain)),
            element("small", STANDINGS[stand], class_="standing"),
        )
    )


def _gap_row(metric: Metric, gap: Gap) -> list[str]:
    interval = f"{change(metric, gap['low'])} to {change(metric, gap['high'])}"
    said = element("small", "they part", class_="standing") if gap["parts"] else Markup()
    apart = (element("span", change(metric, gap["value"])), element("small", interval), said)
    sides = [value(metric, gap[side]) for side in ("held_out", "training")]
    return [gap["contender"], count(gap["shots"]), *sides, join(apart)]

"""The charts of a run's page; each opens with a sentence saying what to see in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from engine.evaluation.prequential.report import Bucket, ReliabilityBin, ReportDict, SeenBin
from engine.types import PREDICTORS
from streams.pages.kit.calendar_axis import date, minute, time_axis
from streams.pages.kit.charts import (
    Axis,
    Bar,
    Frame,
    Point,
    Readout,
    Tick,
    bars,
    chart,
    dots,
    level,
    line,
    linear_axis,
    readouts,
)
from streams.pages.kit.markup import Markup, element
from streams.pages.kit.phrases import EN_DASH, count, number, percent, plural, signed
from streams.pages.run.contents import Drift

DAY_S = 86_400.0

WINDOW = 7
"""Buckets in the moving mean of the lift."""

FEWEST_LABELS = 30
"""A mean over fewer labels than this is left out of the learning curve."""

MOST_TICKS = 7
"""What fits under the learning curve of a narrow page."""

CURVES = PREDICTORS

LEGEND = {
    "base": "base rate of the task",
    "recent": "its recent labels",
    "theta": "theta, the initialization",
    "adapted": "adapted model",
    "served": "as served",
}


def lift_figure(report: ReportDict) -> Markup:
    """Lift by day as bars, with a moving mean."""
    buckets = report["buckets"]
    if not buckets:
        return Markup()
    unit = _stretch(report["bucket_s"])
    width, mean = report["bucket_s"], _moving_mean(buckets)
    lifts = sorted(b["lift"] for b in buckets)
    # The outermost 2% of days are cut, or one day with three labels would flatten all others.
    edge = len(lifts) // 50
    values = [0.0, lifts[edge], lifts[-1 - edge], *mean]
    frame = Frame(
        time_axis(buckets[0]["start_s"], buckets[-1]["start_s"] + width),
        _padded(values, f"lift ({_loss_unit(report)})"),
    )
    middle = [b["start_s"] + width / 2 for b in buckets]
    plane = [_bars(frame, buckets, width, gains) for gains in (True, False)]
    note = f"Lift, the loss of theta minus the loss as served, by {unit}: above zero, the mixture was better."
    if len(buckets) > WINDOW:
        plane.append(line(frame, [Point(*p) for p in zip(middle, mean, strict=True)], "served"))
        note += f" The line is the mean over {WINDOW} {unit}s, weighted by labels."
    shown = [_lift_readout(b, width) for b in buckets]
    gained = sum(b["lift"] > 0 for b in buckets)
    title = f"Served lost less than theta on {gained} of {plural(len(buckets), unit)}"
    drawn = chart(frame, plane, [level(frame, 0), readouts(frame, shown)], title)
    return figure(title, note, drawn)


def learning_figure(report: ReportDict) -> Markup:
    """Loss by how many labels the task had learned from."""
    bins = [b for b in report["learning"] if b["labels"] >= FEWEST_LABELS]
    if len(bins) < 2:
        return Markup()
    names = [name for name in CURVES if name in bins[0]["loss"]]
    step = -(-len(bins) // MOST_TICKS)
    ticks = [Tick(i, _short(b["high"])) for i, b in enumerate(bins) if i % step == 0]
    axis = Axis(-0.5, len(bins) - 0.5, ticks, "labels the task had learned from, at most (log scale)")
    losses = [b["loss"][name] for b in bins for name in names]
    frame = Frame(axis, _padded(losses, f"mean loss ({_loss_unit(report)})"))
    curves = {name: [Point(i, b["loss"][name]) for i, b in enumerate(bins)] for name in names}
    plane = [line(frame, points, name) for name, points in curves.items()]
    marks = [dots(frame, points, name) for name, points in curves.items()]
    shown = [Readout(i - 0.5, i + 0.5, _learning_text(b, names)) for i, b in enumerate(bins)]
    title = _learning_title(bins)
    note = "The same events for each line, so the gap is what that many labels of a task's own buy."
    drawn = chart(frame, plane, [*marks, readouts(frame, shown)], title)
    return figure(title, note, drawn, names)


def calibration_figure(report: ReportDict) -> Markup:
    """How often predictions came true, by how likely they said it was."""
    curves = {n: report["predictors"][n]["reliability"] for n in ("theta", "served")}
    if not all(curves.values()):
        return Markup()
    top = min(1.0, 1.06 * max(max(b["predicted"], b["observed"]) for bins in curves.values() for b in bins))
    what = f"of {report['classes'][1]!r}" if report["target"] == "binary" else "of the class predicted"
    frame = Frame(
        _percent_axis(top, f"probability {what} predicted (%)"),
        _percent_axis(top, "share that came true (%)"),
    )
    plane = [line(frame, [Point(0, 0), Point(top, top)], "ideal")]
    marks = []
    for name, bins in curves.items():
        points = [Point(b["predicted"], b["observed"]) for b in bins]
        plane.append(line(frame, points, name))
        marks.append(dots(frame, points, name))
    marks.append(readouts(frame, _calibration_readouts(curves["served"], top)))
    error = report["predictors"]["served"]["calibration_error"]
    title = f"What is served is off by {number(100 * (error or 0), 1)} percentage points on average"
    note = "On the diagonal, predictions come true as often as they say. Each dot holds about as many labels."
    return figure(title, note, chart(frame, plane, marks, title), list(curves))


def alarm_figure(report: ReportDict, drift: Drift) -> Markup:
    """Alarms over the same stretch of time as the lift."""
    buckets, width = drift["buckets"], drift["bucket_s"]
    if not buckets:
        return Markup()
    most = max(b["alarms"] for b in buckets)
    starts = [b["start_s"] for b in (*buckets, *report["buckets"])]
    frame = Frame(
        time_axis(min(starts), max(starts) + width),
        linear_axis(0, max(1.08 * most, 1), f"alarms a {_stretch(width)}", min(4, most + 1)),
    )
    drawn = [Bar(b["start_s"] + 0.1 * width, b["start_s"] + 0.9 * width, b["alarms"]) for b in buckets]
    shown = [
        Readout(
            b["start_s"],
            b["start_s"] + width,
            f"{_when(b['start_s'], width)}: {plural(b['alarms'], 'alarm')}",
        )
        for b in buckets
    ]
    peak = max(buckets, key=lambda b: b["alarms"])
    title = f"Most alarms, {count(most)}, came on {_when(peak['start_s'], width)}"
    tasks = plural(drift["tasks"], "task")
    note = f"{plural(drift['alarms'], 'alarm')} of {tasks}; detector: {drift['detector']}."
    plot = chart(frame, [bars(frame, drawn, "alarm")], [level(frame, 0), readouts(frame, shown)], title)
    return figure(title, note, plot, short=True)


def figure(title: str, note: str, drawn: Markup, names: Iterable[str] = (), short: bool = False) -> Markup:
    """A chart with its title, a note on how to read it, and a legend of the predictors in it."""
    keys = [element("span", LEGEND[name], class_=f"key {name}") for name in names]
    legend = element("p", *keys, class_="legend") if keys else Markup()
    caption = element("figcaption", element("h3", title), element("p", note))
    return element("figure", caption, legend, drawn, class_="short" if short else "tall")


def _bars(frame: Frame, buckets: Sequence[Bucket], width: float, gains: bool) -> Markup:
    chosen = [b for b in buckets if (b["lift"] > 0) == gains]
    drawn = [Bar(b["start_s"] + 0.1 * width, b["start_s"] + 0.9 * width, b["lift"]) for b in chosen]
    return bars(frame, drawn, "gain" if gains else "loss")


def _moving_mean(buckets: Sequence[Bucket]) -> list[float]:
    half = WINDOW // 2
    windows = [buckets[max(0, i - half) : i + half + 1] for i in range(len(buckets))]
    return [sum(b["lift"] * b["labels"] for b in w) / sum(b["labels"] for b in w) for w in windows]


def _lift_readout(bucket: Bucket, width: float) -> Readout:
    start = bucket["start_s"]
    text = f"{_when(start, width)}: lift {signed(bucket['lift'])}, {plural(bucket['labels'], 'label')}"
    return Readout(start, start + width, text)


def _learning_text(bucket: SeenBin, names: Sequence[str]) -> str:
    losses = ", ".join(f"{name} {number(bucket['loss'][name])}" for name in names)
    return f"{_range(bucket)} learned: {losses}"


def _learning_title(bins: Sequence[SeenBin]) -> str:
    first, last = (b["loss"]["theta"] - b["loss"]["served"] for b in (bins[0], bins[-1]))
    verb = "grows" if last > first else "does not grow"
    return f"The lift {verb} with what a task has learned: from {signed(first)} to {signed(last)}"


def _calibration_readouts(bins: Sequence[ReliabilityBin], top: float) -> list[Readout]:
    at = [b["predicted"] for b in bins]
    cuts = [0.0, *((a + b) / 2 for a, b in pairwise(at)), top]
    return [
        Readout(low, high, f"served: {percent(b['predicted'])} predicted, {percent(b['observed'])} came true")
        for (low, high), b in zip(pairwise(cuts), bins, strict=True)
    ]


def _percent_axis(top: float, label: str) -> Axis:
    scaled = linear_axis(0, 100 * top, label)
    return Axis(0, top, [Tick(tick.at / 100, tick.text) for tick in scaled.ticks], label)


def _padded(values: Sequence[float], label: str) -> Axis:
    low, high = min(values), max(values)
    margin = 0.08 * (high - low)
    return linear_axis(low - margin, high + margin, label)


def _short(labels: int) -> str:
    return str(labels) if labels < 10_000 else f"{labels // 1024}k"


def _range(seen: SeenBin) -> str:
    low, high = count(seen["low"]), count(seen["high"])
    return low if low == high else f"{low}{EN_DASH}{high}"


def _stretch(bucket_s: float) -> str:
    if bucket_s == DAY_S:
        return "day"
    return f"{bucket_s / DAY_S:g}-day period" if bucket_s > DAY_S else f"{bucket_s / 3600:g}-hour period"


def _when(start_s: float, width_s: float) -> str:
    return date(start_s) if width_s >= DAY_S else minute(start_s)


def _loss_unit(report: ReportDict) -> str:
    return "squared error" if report["target"] == "regression" else "nats per label"

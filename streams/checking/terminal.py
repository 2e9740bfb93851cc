"""Findings on a terminal of 80 columns: what to mend first, then what the table holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.targets import Classification
from streams.checking.advice import Findings
from streams.checking.columns import FeatureFacts
from streams.events.wording import utc
from streams.pages.kit.phrases import EN_DASH, count, duration, percent, plural

MOST_CLASSES = 10
"""So many classes are shown, the most frequent first."""

MOST_FEATURES = 40

DAY_S = 86_400.0
PERCENTILES = (5, 50, 95)


def show(findings: Findings, console: Console) -> None:
    """Print everything, warnings first."""
    warn(findings.warnings, console)
    drawn = Table(show_header=False, box=None, pad_edge=False)
    drawn.add_column(no_wrap=True)
    drawn.add_column(overflow="fold")
    for name, value in _facts(findings):
        drawn.add_row(name, value)
    console.print(drawn, soft_wrap=False)
    console.print(_features(findings), soft_wrap=False)


def warn(warnings: Iterable[str], console: Console) -> None:
    """Print warnings."""
    for warning in warnings:
        console.print(Text.assemble(("warning", "bold yellow"), " ", warning))


def _facts(findings: Findings) -> Iterator[tuple[str, str]]:
    sample, labels = findings.sample, findings.labels
    if not sample.whole:
        yield (
            "looked at",
            f"the first {sample.read:,} of {sample.end:,} events in time; what follows is of these",
        )
    yield "rows", f"{sample.rows:,}, of {plural(sample.tasks, 'task')}"
    if len(sample.time_s):
        first_s, last_s = float(sample.time_s.min()), float(sample.time_s.max())
        yield "times, as read", f"{utc(first_s)} to {utc(last_s)} UTC"
    if not len(labels.event):
        return
    low, middle, high = np.percentile(labels.a_task, PERCENTILES)
    yield "labels a task", f"{middle:g} (median), {low:g} to {high:g} (5th to 95th percentile)"
    yield "labels", _labels(findings)
    delay_s = labels.delay_s
    yield (
        "labels come after",
        f"{_span(float(np.median(delay_s)))} (median), {_span(float(delay_s.max()))} (longest)",
    )
    yield (
        "labels come too late",
        (f"{findings.lost.late:,} for memory.ttl_s, {findings.lost.pushed_out:,} for memory.pending"),
    )
    yield "own model can help", f"{percent(labels.helped)} of observations: their task has a label by then"


def _labels(findings: Findings) -> str:
    y, target = findings.y, findings.target
    if isinstance(target, Classification):
        counts = np.bincount(y.astype(np.int64), minlength=len(target.classes))
        frequent = np.argsort(-counts, kind="stable")[:MOST_CLASSES].tolist()
        shown = ", ".join(
            f"{target.classes[k]} {percent(counts[k] / len(y))}" for k in frequent if k < len(target.classes)
        )
        more = len(target.classes) - MOST_CLASSES
        return f"{len(y):,}: {shown}" + (f", and {more} more classes" if more > 0 else "")
    return (
        f"{len(y):,}: mean {y.mean():.4g}, deviation {y.std():.4g}, from {y.min():.4g} to {y.max():.4g}; "
        f"{len(findings.sample.outside):,} outside of {target.low:g} to {target.high:g}"
    )


def _span(seconds: float) -> str:
    return duration(seconds) if seconds < 2 * DAY_S else f"{seconds / DAY_S:.1f} days"


def _features(findings: Findings) -> Table:
    drawn = Table(title_justify="left", caption_justify="left")
    drawn.add_column("feature", overflow="fold")
    drawn.add_column("encoder")
    for name in ("empty", "values", "buckets", "sharing"):
        drawn.add_column(name, justify="right", no_wrap=True)
    drawn.add_column("alone", justify="right", no_wrap=True)
    shown = findings.features[:MOST_FEATURES]
    for feature in shown:
        drawn.add_row(*_cells(feature, len(findings.labels.of_observations(findings.sample))))
    more = len(findings.features) - len(shown)
    drawn.caption = (
        f"{f'and {more} more features; ' if more else ''}sharing: values that share a bucket with another; alone: "
        "how well the feature tells the label by itself, on the later half"
    )
    return drawn


def _cells(feature: FeatureFacts, rows: int) -> tuple[str, ...]:
    return (
        feature.name,
        feature.encoder,
        percent(feature.missing / rows) if feature.missing else "0",
        count(feature.distinct),
        count(feature.buckets) if feature.buckets else EN_DASH,
        count(feature.sharing) if feature.buckets else EN_DASH,
        EN_DASH if feature.alone is None else f"{feature.alone.measure} {feature.alone.value:.3f}",
    )

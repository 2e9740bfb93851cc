"""Numbers and findings in words, the same wherever the program prints them."""

from __future__ import annotations

from engine.evaluation.metrics import Metric
from engine.evaluation.prequential.report import Difference, ReportDict

MINUS, EN_DASH = "\N{MINUS SIGN}", "\N{EN DASH}"
"""What stands before a negative number, and in the place of a missing one."""

METRICS: dict[Metric, str] = {"log_loss": "log loss", "auc": "AUC", "rmse": "RMSE"}

UNITS: dict[Metric, str] = {"log_loss": " nats a label", "auc": "", "rmse": ""}


MIRROR = {
    "task_rate": "the rate, or mean, of each task's labels so far",
    "last_label": "each task's last label",
    "linear_task": "an online linear model with the task's id",
}
"""What anyone would try first, which every run is shown beside: `streams.pages.run.mirror`."""


def count(value: int) -> str:
    """Return a whole number in groups of three: 1,234,567."""
    return f"{value:,}"


def number(value: float | None, digits: int = 4) -> str:
    """Return a number with fixed digits after the point; a dash where there is none."""
    return EN_DASH if value is None else f"{value:,.{digits}f}".replace("-", MINUS)


def signed(value: float | None, digits: int = 4) -> str:
    """Return a difference with its sign."""
    return EN_DASH if value is None else f"{value:+,.{digits}f}".replace("-", MINUS)


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share of one as a percentage; '<0.1%' where it would read as none at all."""
    if share is not None and 0 < share < 0.005 * 10**-digits:
        return f"<{10**-digits:g}%"
    return EN_DASH if share is None else f"{100 * share:.{digits}f}%".replace("-", MINUS)


def plural(value: int, noun: str) -> str:
    """Return how many: '1 task', '2,310 tasks'."""
    return f"{count(value)} {noun}" if value == 1 else f"{count(value)} {noun}s"


def duration(seconds: float) -> str:
    """Return a length of time with its unit: '0.31 s', '42 s', '3 min 20 s', '2 h 5 min'."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def difference(report: ReportDict, predictor: str, metric: Metric) -> Difference | None:
    """Return the predictor's difference to what was served, where it was computed."""
    found = (d for d in report["differences"] if (d["predictor"], d["metric"]) == (predictor, metric))
    return next(found, None)


def interval(found: Difference) -> str:
    """Return the 95% interval: '+0.0110 to +0.0137'."""
    if found["low"] is None or found["high"] is None:
        return "too few days for an interval"
    return f"{signed(found['low'])} to {signed(found['high'])}"


def standing(found: Difference) -> int | None:
    """Return 1 where the served prediction is better beyond the interval, -1 where worse, 0 for a tie.

    None where there is no interval. Losses are better when lower, the area under the curve when higher.
    """
    if found["low"] is None or found["high"] is None:
        return None
    low, high = (found["low"], found["high"]) if found["metric"] != "auc" else (-found["high"], -found["low"])
    return 1 if low > 0 else -1 if high < 0 else 0


def main_metric(report: ReportDict) -> Metric:
    """Return the metric that the verdict is about."""
    return "rmse" if report["target"] == "regression" else "log_loss"


def verdict(report: ReportDict) -> str:
    """Return in one sentence what the mixture as served buys over the shared initialization."""
    metric = main_metric(report)
    found = difference(report, "theta", metric)
    if found is None or found["value"] is None:
        return "No label has been scored yet."
    lift, name, unit = found["value"], METRICS[metric], UNITS[metric]
    stand = standing(found)
    if stand == 0:
        shown = f"No lift shown: {signed(lift)}{unit} in {name}"
        return f"{shown}, and its 95% interval, {interval(found)}, includes zero."
    verb, share = "lowers" if lift > 0 else "raises", _relative(report, metric, lift)
    change = f"Beside theta alone, the mixture {verb} {name} by {number(abs(lift))}{unit} ({share})"
    if stand is None:
        return f"{change}; the stream covers too few days for an interval."
    return f"{change}; the 95% interval of this lift is {interval(found)}."


def mirror(report: ReportDict) -> str:
    """Say how what was served stands beside the best of what is simple; nothing where that was not computed.

    Praise is for what is beyond the best of them, by its interval.
    """
    metric = main_metric(report)
    scores = {name: report["predictors"][name][metric] for name in MIRROR if name in report["predictors"]}
    known = {name: value for name, value in scores.items() if value is not None}
    served = report["predictors"]["served"][metric]
    if not known or served is None:
        return ""
    best = min(known, key=lambda name: known[name])
    reached = f"would have reached a {METRICS[metric]} of {number(known[best])}, served {number(served)}"
    found = difference(report, best, metric)
    stand = None if found is None else standing(found)
    is_same = number(served) == number(known[best])
    so_far = "the same so far" if is_same else "better so far" if served < known[best] else "worse so far"
    return f"{MIRROR[best][0].upper()}{MIRROR[best][1:]} {reached}: {_pays(stand, so_far)}."


def _pays(stand: int | None, so_far: str) -> str:
    """Whether what was served pays, given how it stands and, without an interval, who is ahead."""
    if stand is None:
        return f"{so_far}, which shows nothing yet, since the stream covers too few days for an interval"
    return {
        1: "better, beyond chance",
        0: "a tie, so it is not shown that more than what is simple pays here",
        -1: "worse, so what is simple is enough here",
    }[stand]


def _relative(report: ReportDict, metric: Metric, lift: float) -> str:
    theta = report["predictors"]["theta"][metric]
    return percent(abs(lift) / theta) if theta else "from zero"

"""The tables of a run's page: predictors, tasks, alarms, what became of events, and where time went."""

from __future__ import annotations

from collections.abc import Sequence

from engine.evaluation.metrics import Metric
from engine.evaluation.prequential.report import ReportDict, Scores, TaskLift, TaskSummary
from engine.types import PREDICTORS
from streams.pages.kit.calendar_axis import minute
from streams.pages.kit.layout import table
from streams.pages.kit.markup import Markup, element, join
from streams.pages.kit.phrases import (
    METRICS,
    MIRROR,
    count,
    difference,
    duration,
    interval,
    number,
    percent,
    plural,
    signed,
    standing,
)
from streams.pages.run.contents import Drift, Rejection, RunReport

DESCRIPTIONS = {
    "served": "the mixture of these four that was answered",
    "base": "the rate, or mean, of the task's own labels",
    "recent": "the same of its recent labels",
    "theta": "the shared initialization, not adapted",
    "adapted": "each task's own model",
}

STANDINGS = {1: "served is better", 0: "tie", -1: "better than served", None: ""}

OUTCOMES = {
    "PREDICTED": "observations answered and kept until their label",
    "SCORED": "labels that met their prediction",
    "REPEATED_OBSERVATION": "observations seen before, answered once",
    "REPEATED_LABEL": "labels seen before, scored once",
    "CORRECTED": "second labels that differ from the first; the score stands",
    "LATE": "labels whose observation had expired",
    "ORPHAN": "labels whose observation is not known",
    "EXAMPLE": "late or orphan labels learned from by their own features, not scored",
    "EXPIRED": "observations whose label did not come in time",
    "DUPLICATE": "events redelivered, already folded",
}


def predictor_table(report: RunReport) -> Markup:
    """Every predictor with its figures, what was served first."""
    evaluation = report["evaluation"]
    described = DESCRIPTIONS | MIRROR | report.get("predictors", {})
    metrics: tuple[Metric, ...] = ("rmse",) if evaluation["target"] == "regression" else ("log_loss", "auc")
    compared = [m for m in metrics if m != "auc" or evaluation["target"] == "binary"]
    plain = (
        ["MAE"]
        if evaluation["target"] == "regression"
        else ["accuracy", "kappa-temporal", "calibration error"]
    )
    heads = ["predictor", *(h for m in compared for h in (METRICS[m], "difference to served")), *plain]
    own = ["served", *(name for name in PREDICTORS if name != "served")]
    names = sorted(evaluation["predictors"], key=lambda name: own.index(name) if name in own else len(own))
    rows = [
        [
            _described(name, described.get(name, "")),
            *(cell for m in compared for cell in _compared(evaluation, name, m)),
            *_plain_figures(evaluation["predictors"][name], evaluation["target"] == "regression"),
        ]
        for name in names
    ]
    return table(heads, rows, texts=1)


def class_table(evaluation: ReportDict) -> Markup:
    """Precision, recall and F1 of what was served and of theta, by class."""
    served, theta = (evaluation["predictors"][name]["per_class"] for name in ("served", "theta"))
    rows = [
        [
            s["name"],
            count(s["labels"]),
            *(f"{number(s[k], 3)} ({number(t[k], 3)})" for k in ("precision", "recall", "f1")),
        ]
        for s, t in zip(served, theta, strict=True)
    ]
    return table(["class", "labels", "precision", "recall", "F1"], rows, texts=1)


def task_tables(tasks: TaskSummary) -> Markup:
    """The tasks that gain and that lose most, side by side."""
    gaining = element("div", element("h3", "Gain most"), _task_table(tasks["most"], "No task gains."))
    losing = element("div", element("h3", "Lose most"), _task_table(tasks["least"], "No task loses."))
    return join((element("p", _task_sentence(tasks)), element("div", gaining, losing, class_="pair")))


def alarm_table(drift: Drift) -> Markup:
    """The latest alarms, one a row."""
    if not drift["latest"]:
        return element("p", "No alarm was raised.")
    rows = [
        [
            element("span", alarm["task"], class_="task", title=alarm["task"]),
            element("span", minute(alarm["time_s"]), class_="time"),
            count(alarm["labels"]),
            number(alarm.get("loss_before")),
            number(alarm.get("loss_after")),
        ]
        for alarm in drift["latest"]
    ]
    heads = ["task", "time (UTC)", "labels learned", "loss before", "loss after"]
    return table(heads, rows, texts=2)


def outcome_table(outcomes: dict[str, int], events: int) -> Markup:
    """What became of the events."""
    rows = [
        [
            _described(name.lower().replace("_", " "), OUTCOMES.get(name, "")),
            count(n),
            percent(n / events if events else None),
        ]
        for name, n in outcomes.items()
        if n
    ]
    return table(["outcome", "events", "of all events"], rows, texts=1)


def rejection_table(rejected: Sequence[Rejection]) -> Markup:
    """Events refused, by reason, with the place of the first."""
    if not rejected:
        return element("p", "No event was refused.")
    rows = [[r["reason"], element("code", r["first"]), count(r["count"])] for r in rejected]
    return table(["reason", "first at", "events"], rows, texts=2)


def throughput_table(report: RunReport) -> Markup:
    """Where the time went."""
    seconds = report["run"]["seconds"]
    rows = [
        [stage["name"], duration(stage["seconds"]), percent(stage["seconds"] / seconds if seconds else None)]
        for stage in report.get("stages", [])
    ]
    return table(["part", "time", "of the run"], rows, texts=1)


def _compared(evaluation: ReportDict, name: str, metric: Metric) -> tuple[str, str]:
    value, found = number(evaluation["predictors"][name][metric]), difference(evaluation, name, metric)
    if found is None or found["value"] is None:
        return value, ""
    stand = standing(found)
    said = STANDINGS[stand]
    lines = (
        element("span", signed(found["value"]), class_="tie" if stand == 0 else "apart"),
        element("small", interval(found)),
        element("small", said, class_="standing") if said else Markup(),
    )
    return value, join(lines)


def _described(name: str, meaning: str) -> Markup:
    return join((element("b", name), element("small", meaning)))


def _plain_figures(scores: Scores, regression: bool) -> list[str]:
    if regression:
        return [number(scores["mae"])]
    return [
        percent(scores["accuracy"]),
        number(scores["kappa_temporal"], 3),
        number(scores["calibration_error"]),
    ]


def _task_sentence(tasks: TaskSummary) -> str:
    scored, quantiles = tasks["scored"], tasks["quantiles"]
    if not scored:
        return f"None of {plural(tasks['tasks'], 'task')} has a scored label yet."
    return (
        f"Of {plural(scored, 'task')} with a scored label, {percent(tasks['gaining'] / scored, 0)} gain and "
        f"{percent(tasks['losing'] / scored, 0)} lose. Lift per label: {signed(quantiles['50%'])} for the "
        f"median task; nine in ten lie between {signed(quantiles['5%'])} and {signed(quantiles['95%'])}."
    )


def _task_table(tasks: Sequence[TaskLift], none: str) -> Markup:
    if not tasks:
        return element("p", none)
    rows = [
        [
            element("span", t["task"], class_="task", title=t["task"]),
            count(t["labels"]),
            number(t["theta"], 3),
            number(t["served"], 3),
            signed(t["lift"], 2),
        ]
        for t in tasks
    ]
    return table(["task", "labels", "theta", "served", "total lift"], rows, texts=1)

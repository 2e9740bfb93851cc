"""The page of a run: one HTML file that fetches nothing and says what adaptation bought.

The prose is written for the operator; every figure in it comes from the run, and a figure without a
value is left out or shown as a dash.
"""

from __future__ import annotations

from pathlib import Path

from streams.pages.kit.calendar_axis import minute, period
from streams.pages.kit.layout import page, section
from streams.pages.kit.markup import Markup, element, join
from streams.pages.kit.phrases import (
    METRICS,
    count,
    difference,
    duration,
    main_metric,
    mirror,
    plural,
    signed,
    verdict,
)
from streams.pages.run import figures, sections
from streams.pages.run.contents import Run, RunReport
from streams.system.files import write_whole

NOTES = (
    "Each label is scored against the predictions made before it was known (prequential evaluation). Lift is "
    "the loss of theta, the shared initialization, minus the loss as served, on the same events. Intervals "
    "are 95%, from 1,000 resamples of whole days; where one includes zero, the two are called a tie. "
    "Kappa-temporal compares accuracy with repeating the previous label: 1 is perfect, 0 no better."
)


def write_report(path: Path, report: RunReport) -> None:
    """Write the page. Raises `StoreError` where the file cannot be written."""
    write_whole(path, render(report).encode())


def render(report: RunReport) -> str:
    """Return the page as text."""
    parts = (_headline(report), _predictors(report), _time(report), _learning(report), _tasks(report))
    more = (_drift(report), _events(report), _throughput(report), _settings(report), _footer(report))
    return page(report["title"], *parts, *more)


def _headline(report: RunReport) -> Markup:
    run = report["run"]
    return element(
        "header",
        element("p", "Reptide evaluation report", class_="kicker"),
        element("h1", report["title"]),
        element("p", f"Streamed from {run['source']}", class_="source"),
        element("p", verdict(report["evaluation"]), class_="verdict"),
        _mirror(report),
        element("dl", *(_tile(*tile) for tile in _tiles(report)), class_="tiles"),
        _period(report),
    )


def _mirror(report: RunReport) -> Markup:
    said = mirror(report["evaluation"])
    return element("p", said, class_="verdict") if said else Markup()


def _tiles(report: RunReport) -> list[tuple[str, str]]:
    run, evaluation = report["run"], report["evaluation"]
    tiles = [
        ("events", count(run["events"])),
        ("tasks", count(run["tasks"])),
        ("labels scored", count(evaluation["labels"])),
    ]
    if run["seconds"] > 0:
        tiles.append(("events a second", count(round(_streamed(run) / run["seconds"]))))
    metric = main_metric(evaluation)
    found = difference(evaluation, "theta", metric)
    if found is not None and found["value"] is not None:
        tiles.append((f"lift in {METRICS[metric]}", signed(found["value"])))
    return tiles


def _tile(name: str, value: str) -> Markup:
    return element("div", element("dt", name), element("dd", value))


def _period(report: RunReport) -> Markup:
    given, evaluation = report.get("period"), report["evaluation"]
    if given is not None:
        return element(
            "p",
            _reported(given["reported"]),
            " ",
            _chosen(given["chosen_on"], given["reported"]),
            class_="period",
        )
    if evaluation["first_s"] is None or evaluation["last_s"] is None:
        return Markup()
    return element("p", _reported((evaluation["first_s"], evaluation["last_s"])), class_="period")


def _reported(reported: tuple[float, float] | list[float]) -> str:
    return f"Reported on labels of {period(*reported)}."


def _chosen(
    chosen: tuple[float, float] | list[float] | None, reported: tuple[float, float] | list[float]
) -> str:
    if chosen is None:
        return "No setting was chosen by labels of this stream."
    if chosen[0] <= reported[1] and reported[0] <= chosen[1]:
        return (
            f"Settings were chosen on {period(*chosen)}, which overlaps with the period reported: "
            "the figures are optimistic."
        )
    return f"Settings were chosen on {period(*chosen)}; none of those labels is counted here."


def _predictors(report: RunReport) -> Markup:
    classes = report["evaluation"]["predictors"]["served"]["per_class"]
    by_class = (
        element(
            "details",
            element("summary", "By class: as served, with theta in brackets"),
            sections.class_table(report["evaluation"]),
        )
        if classes
        else Markup()
    )
    return section("Predictors compared", sections.predictor_table(report), by_class)


def _time(report: RunReport) -> Markup:
    return section("Lift over time", figures.lift_figure(report["evaluation"]))


def _learning(report: RunReport) -> Markup:
    learning = figures.learning_figure(report["evaluation"])
    calibration = figures.calibration_figure(report["evaluation"])
    if learning and calibration:
        return section("Learning and calibration", element("div", learning, calibration, class_="pair"))
    return join((section("Learning", learning), section("Calibration", calibration)))


def _tasks(report: RunReport) -> Markup:
    tasks = report["evaluation"]["tasks"]
    return section("Tasks", sections.task_tables(tasks)) if tasks else Markup()


def _drift(report: RunReport) -> Markup:
    drift = report.get("drift")
    if drift is None:
        return Markup()
    latest = element("h3", f"Latest {plural(len(drift['latest']), 'alarm')}") if drift["latest"] else Markup()
    return section(
        "Drift alarms", figures.alarm_figure(report["evaluation"], drift), latest, sections.alarm_table(drift)
    )


def _events(report: RunReport) -> Markup:
    outcomes, rejected = report.get("outcomes"), report.get("rejected")
    counted = sections.outcome_table(outcomes, report["run"]["events"]) if outcomes is not None else Markup()
    if rejected is None:
        return section("What became of the events", counted)
    refused = element("h3", "Refused as bad input")
    return section("What became of the events", counted, refused, sections.rejection_table(rejected))


def _throughput(report: RunReport) -> Markup:
    run = report["run"]
    if run["seconds"] <= 0:
        return Markup()
    machine = f" on {run['machine']}" if "machine" in run else ""
    rate = count(round(_streamed(run) / run["seconds"]))
    said = f"{plural(_streamed(run), 'event')} in {duration(run['seconds'])}, {rate} a second{machine}."
    stages = sections.throughput_table(report) if report.get("stages") else Markup()
    return section("Throughput", element("p", said), stages)


def _streamed(run: Run) -> int:
    """Events of the last process, whose time was taken."""
    return run.get("streamed", run["events"])


def _settings(report: RunReport) -> Markup:
    run = report["run"]
    command = element("pre", run["command"]) if "command" in run else Markup()
    settings = element("pre", report["settings"]) if "settings" in report else Markup()
    versions = [element("span", f"{name} {v}") for name, v in report.get("versions", {}).items()]
    listed = element("p", *versions, class_="versions") if versions else Markup()
    return section("Settings and versions", command, settings, listed)


def _footer(report: RunReport) -> Markup:
    run = report["run"]
    finished = (
        element("p", f"Run finished {minute(run['finished_s'])} UTC.") if "finished_s" in run else Markup()
    )
    return element("footer", element("p", NOTES), finished)

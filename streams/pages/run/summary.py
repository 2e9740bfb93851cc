"""A run's page, put together from what the run left behind: outputs, settings, and what it ran on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from time import time
from typing import NamedTuple

import polars as pl

from engine.evaluation.prequential.report import ReportDict
from streams.events.decoding import Tally, tally
from streams.logs.output import OutputLog
from streams.pages.kit.phrases import mirror, plural
from streams.pages.run import PAGE, write_report
from streams.pages.run.contents import Drift, Rejection, Run, RunReport
from streams.pages.run.ended import came_to_nothing, made_room, why_nothing_was_scored
from streams.pages.run.evaluation import EXPIRED, Met, evaluate, outcomes_met, scores_of
from streams.pages.run.lines import lines_once
from streams.pages.run.mirror import mirrored
from streams.program.embedded import Embedded
from streams.program.progress import Progress
from streams.settings.leaks import known_too_late
from streams.settings.tree import Settings, required
from streams.system.machine import described_machine, versions

DAY_S = 86_400.0
LATEST_ALARMS = 20


def run_report(
    settings: Settings,
    run: Run,
    evaluation: ReportDict,
    drift: Drift,
    met: Mapping[str, Met],
    rejected: list[Rejection],
) -> RunReport:
    """Everything the page shows of one run."""
    return RunReport(
        title=settings.title,
        run=run,
        evaluation=evaluation,
        drift=drift,
        outcomes={outcome: one.events for outcome, one in met.items()},
        rejected=rejected,
        settings=settings.model_dump_json(indent=2),
        versions=versions(),
    )


def drift_of(detector: str, log: OutputLog, since_s: float = -float("inf")) -> Drift:
    """Alarms by day, and the latest of them."""
    alarms = [
        line
        for lines in lines_once(log, {"task": pl.String, "time": pl.Float64, "seen": pl.Int64})
        for line in lines.filter(pl.col("time") >= since_s).rows(named=True)
    ]
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
    for lines in lines_once(log, dict.fromkeys(("origin", "reason", "detail"), pl.String)):
        said = lines.select("origin", "reason", "detail").rows()
        counted = tally(counted, said, str)
    return [
        Rejection(reason=reason, count=found.count, first=f"{found.origin}: {found.detail}")
        for reason, found in sorted(counted.items(), key=lambda pair: -pair[1].count)
    ]


class Summary(NamedTuple):
    """What a run came to."""

    said: str
    """In words, with the page's path."""
    warnings: tuple[str, ...]
    """What came to nothing, and features that no observation can know."""
    is_scored: bool
    """Whether a label was scored, or none could be: no label column is named, or nothing was left to stream."""


def summarise(settings: Settings, program: Embedded, totals: Progress) -> Summary:
    """Write the page of everything streamed so far."""
    source = required(settings.input, "input")
    met = outcomes_met(program.outputs["predictions"], program.outputs["scores"])
    rejected = rejections(program.outputs["dead-letter"])
    evaluation = _evaluated(program)
    run = Run(
        source=str(source.path),
        events=sum(one.events for outcome, one in met.items() if outcome != EXPIRED)
        + sum(one["count"] for one in rejected),
        streamed=totals.events,
        tasks=sum(1 for _ in program.store.tasks()),
        seconds=totals.seconds,
        finished_s=time(),
        machine=described_machine(),
    )
    path = settings.run.directory / PAGE
    drift = drift_of(settings.drift.detector, program.outputs["drifts"])
    write_report(path, run_report(settings, run, evaluation, drift, met, rejected))
    is_scored = "scored" in met
    said = (
        verdict(evaluation)
        if is_scored
        else why_nothing_was_scored(met, rejected, source.label, program.log.end())
    )
    leaks = known_too_late([feature.name for feature in settings.features], source)
    room = made_room(program.store.gone_for_room())
    warnings = (*program.log.remarks(), *came_to_nothing(met, rejected), *room, *leaks)
    is_nothing_new = not totals.events and program.log.end() > 0
    return Summary(f"{said}\nreport: {path}", warnings, is_scored or source.label is None or is_nothing_new)


def _evaluated(program: Embedded) -> ReportDict:
    """What was served beside the mirror, or alone where the mirror has none of its labels."""
    target, scores = program.engine.spec.problem.target, program.outputs["scores"]
    beside = evaluate(
        target, scores_of(scores, target), (mirrored(program.log, program.engine.spec.problem),)
    )
    return beside if beside["labels"] else evaluate(target, scores_of(scores, target))


def verdict(evaluation: ReportDict) -> str:
    """What adaptation bought, and whether something simple would have done."""
    theta, served = (evaluation["predictors"][name]["loss"] or 0.0 for name in ("theta", "served"))
    labels = plural(evaluation["labels"], "label")
    return (
        f"{labels} scored: loss {served:.4f} as served, {theta:.4f} under theta alone, "
        f"lift {theta - served:+.4f}. {mirror(evaluation)}"
    ).rstrip()

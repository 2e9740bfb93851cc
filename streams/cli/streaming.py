"""What `reptide run`, `check` and `rebuild` do, and what they print of it."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text

from engine.checks.models import OFFLINE_CHECKS
from engine.checks.suite import promises_kept
from engine.kernels.kernel import with_kernel
from engine.stream.layout import layout_of
from streams import checking
from streams.assembly import embedded as assembly
from streams.assembly import learners, parts
from streams.cli.arguments import console
from streams.errors import ReptideError
from streams.pages.kit.phrases import plural
from streams.pages.progress import progress_bar, working
from streams.pages.run.summary import summarise
from streams.program.embedded import run as run_embedded
from streams.replay.embedded import rebuild as rebuild_directory
from streams.settings.leaks import known_too_late
from streams.settings.tree import Settings, required
from streams.system.collector import leave_imports_out
from streams.system.machine import keep_freed_memory


def run(settings: Settings) -> bool:
    """Stream to the end, write the report, and say whether a label was scored."""
    leave_imports_out()
    keep_freed_memory()
    program = assembly.embedded(settings, console.print)
    try:
        with progress_bar(console, settings.title, program.log.end()) as show:
            totals = run_embedded(program, lambda progress: show(program.log.committed(), progress))
        with working(console, "comparing with simple models, and writing the page"):
            summary = summarise(settings, program, totals)
    finally:
        program.close()
    checking.warn(summary.warnings, console)
    console.print(summary.said)
    return summary.is_scored


def check(settings: Settings) -> bool:
    """Say what to mend before streaming, and whether a label will be scored."""
    leave_imports_out()
    if settings.episodes is not None:
        from streams.laboratory.assembled import laboratory

        found = laboratory(settings)
        console.print(found.said)
        if not found.serves:
            _promised([check.__name__ for check in OFFLINE_CHECKS])
            return True
    spec = parts.stream_spec(settings)
    log = assembly.input_log(settings, spec.problem, None)
    learner = with_kernel(learners.learner(settings, spec.problem))  # as it runs
    _promised(promises_kept(spec, learner))
    cost = layout_of(spec, learner).bytes_per_task
    console.print(
        f"input: {log.end():,} events; one task takes {cost:,} bytes, a million {cost / 1000:,.1f} GB"
    )
    source = required(settings.input, "input")
    has_labels = source.label is not None
    with working(console, "looking at the table"):
        seen = checking.findings(
            log, spec, settings.outer.every, has_labels=has_labels, remarks=log.remarks()
        )
    names = [feature.name for feature in settings.features]
    checking.warn(known_too_late(names, source), console)
    checking.show(seen, console)
    return seen.scores_any or not has_labels


def rebuild(settings: Settings, inexact: bool, by_workers: bool, task: str | None) -> str:
    """Make rows anew from the log, and say how many."""
    if settings.kafka is not None:
        return _rebuild_deployed(settings, inexact, by_workers, task)
    if by_workers:
        raise ReptideError("--by-workers: a state directory has no workers; leave it out")
    with progress_bar(
        console, "rebuilding", assembly.input_log(settings, learners.problem_of(settings), None).end()
    ) as show:
        tasks = rebuild_directory(settings, show, inexact, task)
    return f"{plural(tasks, 'row')} made anew"


def _rebuild_deployed(settings: Settings, inexact: bool, by_workers: bool, task: str | None) -> str:
    from streams.assembly.deployed import Deployment
    from streams.replay.deployed import rebuild_deployment, rebuild_task

    deployment = Deployment(settings)
    with working(console, "rebuilding") as say:

        def show(events: int) -> None:
            """Say how far it is."""
            say(f"rebuilding: {events:,} events")

        if task is not None:
            rebuild_task(deployment, task, show, inexact)
            return "1 row made anew"
        rows = rebuild_deployment(deployment, show, inexact, by_workers)
    return "start the workers: they fold the log again" if by_workers else f"{plural(rows, 'row')} made anew"


def _promised(kept: Iterable[str]) -> None:
    for promise in kept:
        console.print(Text.assemble(("ok", "green"), " ", promise.replace("_", " ")))

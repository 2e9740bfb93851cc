"""The command `reptide`. Every error that is no defect is one sentence and exit status 1."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, NoReturn

import torch
import typer
from rich.text import Text

from engine import compiled
from engine.checks import promises_kept
from engine.checks.models import OFFLINE_CHECKS
from engine.stream.layout import layout_of
from engine.types import EngineError
from streams import checking
from streams.assembly import embedded as assembly
from streams.assembly import parts
from streams.cli.arguments import Config, Flags, console, settings_from
from streams.cli.deployment import app as deployed
from streams.cli.laboratory import app as meta_training
from streams.cli.snapshots import app as snapshots
from streams.errors import ReptideError
from streams.events.wording import shown
from streams.laboratory.assembled import laboratory
from streams.operate.forget import forget_task
from streams.operate.inspect import describe_task
from streams.pages.kit.phrases import plural
from streams.pages.progress import progress_bar, working
from streams.pages.run.summary import summarise
from streams.program.embedded import run as run_embedded
from streams.replay.embedded import rebuild
from streams.settings.leaks import known_too_late
from streams.settings.tree import Settings, required
from streams.system.files import refusal

app = typer.Typer(
    help="Online personalization: a meta-learned model of its own for every task of an event stream.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # plain markup would take [section] in a description for a tag
)

INTERRUPTED = 130
"""How typer exits on Ctrl-C."""

EXTRAS = {
    "confluent_kafka": "kafka",
    "kafka": "kafka",
    "redis": "redis",
    "optuna": "tune",
    "tomlkit": "tune",
}
"""The extra that brings each library that not everybody needs."""

RESUMES = {"run", "tune", "worker", "trainer"}
"""Commands that go on where they were stopped."""


def main() -> None:
    """Run the command line."""
    app.add_typer(meta_training)
    app.add_typer(snapshots)
    deployed.command("demo-kafka")(demo_kafka)
    app.add_typer(deployed)
    sys.path.append(str(Path.cwd()))  # where modules that the settings name may lie
    if compiled.FOLDER is None:
        checking.warn([compiled.NOT_KEPT], console)
    torch.set_num_threads(1)  # one thread a worker: two on shared cores were measured to cost up to ten times
    try:
        app(standalone_mode=True)
    except (ReptideError, EngineError) as error:
        _refuse(str(error))
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        _refuse(f"this command needs {error.name}: pip install '.[{EXTRAS[error.name]}]'")
    except OSError as error:
        _refuse(refusal(error))
    except SystemExit as ended:
        if ended.code == INTERRUPTED:
            goes_on = RESUMES & set(sys.argv)
            console.print("stopped; start it again and it goes on from here" if goes_on else "stopped")
        raise


def _refuse(said: str) -> NoReturn:
    console.print(Text.assemble(("error:", "bold red"), " ", said))
    sys.exit(1)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the report, its data and the state.")] = Path("demo"),
    flag: Flags = None,
) -> None:
    """Stream 336,776 real flights, give every task a model of its own, and write a report of what it bought."""
    from streams.demo.embedded import run_demo  # its baselines import river, for a second

    run_demo(out, console, flag or ())


@app.command()
def run(config: Config, flag: Flags = None) -> None:
    """Stream the input of CONFIG to its end, going on where the last run stopped, and write a report."""
    settings = settings_from(config, flag)
    program = assembly.embedded(settings, console.print)
    try:
        with progress_bar(console, settings.title, program.log.end()) as show:
            totals = run_embedded(program, lambda progress: show(program.log.position(), progress))
        with working(console, "comparing with simple models, and writing the page"):
            summary = summarise(settings, program, totals)
    finally:
        program.close()
    checking.warn(summary.warnings, console)
    console.print(summary.said)
    if not summary.is_scored:
        raise typer.Exit(1)


@app.command()
def check(config: Config, flag: Flags = None) -> None:
    """Check the settings, the model and the input or examples of CONFIG, and say what to mend before streaming."""
    settings = settings_from(config, flag)
    if settings.episodes is not None:
        found = laboratory(settings)
        console.print(found.said)
        if not found.serves:
            _promised([check.__name__ for check in OFFLINE_CHECKS])
            return
    spec = parts.task_spec(settings)
    log = assembly.input_log(settings, spec, None)
    learner = parts.learner(settings, spec)
    _promised(promises_kept(spec, learner))
    cost = layout_of(learner).bytes_per_task
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
    if has_labels and not seen.scores_any:
        raise typer.Exit(1)


def _promised(kept: Iterable[str]) -> None:
    for promise in kept:
        console.print(Text.assemble(("ok", "green"), " ", promise.replace("_", " ")))


@app.command()
def tune(
    config: Config,
    share: Annotated[float, typer.Option(help="Share of the events, from the first on, that decides.")] = 0.2,
    trials: Annotated[int, typer.Option(min=1, help="How many settings to try in all.")] = 40,
    minutes: Annotated[float, typer.Option(min=0, help="Stop after so long.")] = 30.0,
    jobs: Annotated[int, typer.Option(min=1, help="Trials at a time, each in a process of its own.")] = 1,
    out: Annotated[Path | None, typer.Option(help="The file to write; else CONFIG with .tuned.toml.")] = None,
    flag: Flags = None,
) -> None:
    """Choose settings on the first part of the stream of CONFIG and write them beside it; goes on where stopped."""
    settings = settings_from(config, flag)
    from streams.cli.tuning import tune as search  # imports optuna, for half a second

    if not search(config, settings, tuple(flag or ()), out, share, trials, minutes, jobs, console):
        raise typer.Exit(INTERRUPTED)


@app.command()
def inspect(
    task: Annotated[str, typer.Argument(help="Task id.")], config: Config, flag: Flags = None
) -> None:
    """Show everything that is kept of one task."""
    described = describe_task(settings_from(config, flag), task)
    if not described["known"]:
        raise ReptideError(f"no task {shown(task)} is known: no event of it was folded, or it was forgotten")
    typer.echo(json.dumps(described, indent=2))


@app.command()
def forget(task: Annotated[str, typer.Argument(help="Task id.")], config: Config, flag: Flags = None) -> None:
    """Delete everything that is kept of one task, and never take it up again from the same log."""
    settings = settings_from(config, flag)
    console.print(forget_task(settings, task))


@app.command("rebuild")
def rebuild_rows(
    config: Config,
    inexact: Annotated[
        bool, typer.Option("--inexact", help="Make rows of what is left, where the log or a theta is gone.")
    ] = False,
    by_workers: Annotated[
        bool, typer.Option("--by-workers", help="Clear the rows; workers fold the log again, side by side.")
    ] = False,
    task: Annotated[str | None, typer.Option("--task", help="Make the row of this task alone anew.")] = None,
    flag: Flags = None,
) -> None:
    """Make rows anew from the log, under the versions of theta that were adopted then."""
    settings = settings_from(config, flag)
    if settings.kafka is not None:
        _rebuild_deployed(settings, inexact, by_workers, task)
        return
    if by_workers:
        raise ReptideError("--by-workers: a state directory has no workers; leave it out")
    with progress_bar(
        console, "rebuilding", assembly.input_log(settings, parts.task_spec(settings), None).end()
    ) as show:
        tasks = rebuild(settings, show, inexact, task)
    console.print(f"{plural(tasks, 'row')} made anew")


@app.command("show-config")
def show_config(config: Config, flag: Flags = None) -> None:
    """Print every setting in force, defaults, environment and flags included."""
    typer.echo(settings_from(config, flag).model_dump_json(indent=2))


def _rebuild_deployed(settings: Settings, inexact: bool, by_workers: bool, task: str | None) -> None:
    from streams.assembly.deployed import Deployment
    from streams.replay.deployed import rebuild_deployment, rebuild_task

    deployment = Deployment(settings)
    with working(console, "rebuilding") as say:

        def show(events: int) -> None:
            """Say how far it is."""
            say(f"rebuilding: {events:,} events")

        if task is not None:
            rebuild_task(deployment, task, show, inexact)
            said = "1 row made anew"
        else:
            rows = rebuild_deployment(deployment, show, inexact, by_workers)
            made_anew = f"{plural(rows, 'row')} made anew"
            said = "start the workers: they fold the log again" if by_workers else made_anew
    console.print(said)


def demo_kafka(
    out: Annotated[Path, typer.Option(help="Folder for the figures and what the processes say.")] = Path(
        "demo-kafka"
    ),
    embedded: Annotated[Path, typer.Option(help="Folder that `reptide demo` wrote.")] = Path("demo"),
    rate: Annotated[float, typer.Option(min=0, help="Events a second; 0: as fast as it goes.")] = 3000.0,
    jars: Annotated[
        Path | None, typer.Option(help="Folder of Apache Kafka's jars; without, the broker is a small one.")
    ] = None,
) -> None:
    """Stream the flights through Kafka and Redis, two workers and a trainer, and compare with `reptide demo`."""
    from streams.demo.deployed import run_demo_kafka

    run_demo_kafka(out, embedded, rate, jars, console)


if __name__ == "__main__":
    main()

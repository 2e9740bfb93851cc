"""The command `reptide`. Every error that is no defect is one sentence and exit status 1.

Its help takes a fraction of a second, and so does a sentence about a wrong setting: what a command does is imported
once it is run and its settings are read (`streaming`, `serving`, `training`, `tuning`).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.text import Text

from engine.errors import EngineError
from streams.cli.arguments import Config, Flags, console, settings_from
from streams.cli.deployment import app as deployed
from streams.cli.laboratory import app as meta_training
from streams.cli.snapshots import app as snapshots
from streams.errors import ReptideError
from streams.system.collector import collect_seldom
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
    collect_seldom()
    sys.path.append(str(Path.cwd()))  # where modules that the settings name may lie
    os.environ["OMP_NUM_THREADS"] = (
        "1"  # read by torch: two on shared cores were measured to cost up to ten times
    )
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
    from streams.demo.embedded import run_demo

    run_demo(out, console, flag or ())


@app.command()
def run(config: Config, flag: Flags = None) -> None:
    """Stream the input of CONFIG to its end, going on where the last run stopped, and write a report."""
    settings = settings_from(config, flag)
    from streams.cli import streaming

    if not streaming.run(settings):
        raise typer.Exit(1)


@app.command()
def check(config: Config, flag: Flags = None) -> None:
    """Check the settings, the model and the input or examples of CONFIG, and say what to mend before streaming."""
    settings = settings_from(config, flag)
    from streams.cli import streaming

    if not streaming.check(settings):
        raise typer.Exit(1)


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
    from streams.cli import tuning

    if not tuning.tune(config, settings, tuple(flag or ()), out, share, trials, minutes, jobs, console):
        raise typer.Exit(INTERRUPTED)


@app.command()
def inspect(
    task: Annotated[str, typer.Argument(help="Task id.")], config: Config, flag: Flags = None
) -> None:
    """Show everything that is kept of one task."""
    settings = settings_from(config, flag)
    from streams.events.wording import shown
    from streams.operate.inspect import describe_task

    described = describe_task(settings, task)
    if not described["known"]:
        raise ReptideError(f"no task {shown(task)} is known: no event of it was folded, or it was forgotten")
    typer.echo(json.dumps(described, indent=2))


@app.command()
def forget(task: Annotated[str, typer.Argument(help="Task id.")], config: Config, flag: Flags = None) -> None:
    """Delete everything that is kept of one task, and never take it up again from the same log."""
    settings = settings_from(config, flag)
    from streams.operate.forget import forget_task

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
    from streams.cli import streaming

    console.print(streaming.rebuild(settings, inexact, by_workers, task))


@app.command("show-config")
def show_config(config: Config, flag: Flags = None) -> None:
    """Print every setting in force, defaults, environment and flags included."""
    typer.echo(settings_from(config, flag).model_dump_json(indent=2))


@app.command("demo-kafka")
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


app.add_typer(meta_training)
app.add_typer(snapshots)
app.add_typer(deployed)


if __name__ == "__main__":
    main()

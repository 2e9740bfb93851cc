"""The commands of a deployment: worker, trainer, rollback, produce, tail, topics create|check, redrive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streams.cli.arguments import Config, Flags, settings_from
from streams.errors import ReptideError
from streams.logs.output import TOPICS

app = typer.Typer()
topics = typer.Typer(help="The topics of a stream.", no_args_is_help=True)
app.add_typer(topics, name="topics")


@app.command()
def worker(config: Config, flag: Flags = None) -> None:
    """Fold the partitions of the stream that are this member's, until told to stop (SIGTERM)."""
    settings = settings_from(config, flag)
    from streams.cli import serving

    serving.worker(settings)


@app.command()
def trainer(config: Config, flag: Flags = None) -> None:
    """Train theta on the episodes of all workers and publish its versions, until told to stop (SIGTERM)."""
    settings = settings_from(config, flag)
    from streams.cli import serving

    serving.trainer(settings)


@app.command()
def rollback(
    version: Annotated[int, typer.Argument(min=1, help="An earlier version of theta.", show_default=False)],
    config: Config,
    flag: Flags = None,
) -> None:
    """Publish an earlier version of theta as the newest: the way back from one that harms."""
    settings = settings_from(config, flag)
    from streams.cli import serving

    serving.rollback(settings, version)


@app.command()
def produce(
    config: Config,
    rate: Annotated[float, typer.Option(min=0, help="Events a second; 0: as fast as it goes.")] = 0.0,
    flag: Flags = None,
) -> None:
    """Send the rows of the input file to Kafka, as observations and delayed labels."""
    settings = settings_from(config, flag)
    from streams.cli import serving

    serving.produce(settings, rate)


@app.command()
def tail(
    output: Annotated[str, typer.Argument(help=f"One of {', '.join(TOPICS)}.", show_default=False)],
    config: Config,
    whole: Annotated[
        bool, typer.Option("--whole", help="From the start to the end, instead of what comes.")
    ] = False,
    flag: Flags = None,
) -> None:
    """Print an output as it comes, one JSON object a line."""
    if output not in TOPICS:
        raise ReptideError(f"there is no output {output!r}; there are {', '.join(TOPICS)}")
    settings = settings_from(config, flag)
    from streams.cli import serving

    serving.tail(settings, output, whole)


@app.command()
def redrive(
    letters: Annotated[
        Path, typer.Argument(help="Dead letters as `tail dead-letter` prints them; - reads them.")
    ],
    config: Config,
    flag: Flags = None,
) -> None:
    """Send dead letters, repaired, back to the topics that they came from."""
    settings = settings_from(config, flag)
    from streams.cli import serving

    serving.redrive(settings, letters)


@topics.command("create")
def create(
    config: Config,
    partitions: Annotated[
        int, typer.Option(min=1, help="Of every topic; it bounds the number of workers.")
    ] = 12,
    replication: Annotated[int, typer.Option(min=1, help="Copies of each partition.")] = 1,
    flag: Flags = None,
) -> None:
    """Create the topics that are not there yet."""
    settings = settings_from(config, flag)
    from streams.cli import serving

    serving.create_topics(settings, partitions, replication)


@topics.command("check")
def check(config: Config, flag: Flags = None) -> None:
    """See whether the topics are as the stream needs them; exit status 1 where they are not."""
    settings = settings_from(config, flag)
    from streams.cli import serving

    if not serving.check_topics(settings):
        raise typer.Exit(1)

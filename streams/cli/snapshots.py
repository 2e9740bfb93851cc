"""The commands `reptide snapshot` and `reptide restore`, of a state directory or of a deployment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streams.cli.arguments import Config, Flags, console, settings_from

app = typer.Typer()

Directory = Annotated[Path, typer.Argument(help="The snapshot.", show_default=False)]


@app.command()
def snapshot(config: Config, directory: Directory, flag: Flags = None) -> None:
    """Write what the stream of CONFIG has learned to a new DIRECTORY, while it goes on."""
    settings = settings_from(config, flag)
    from streams.operate.snapshots import state_directory
    from streams.pages.progress import working

    with working(console, "taking a snapshot") as show:
        if settings.kafka is None:
            state_directory.snapshot(settings, directory, show)
        else:
            from streams.assembly.deployed import Deployment
            from streams.operate.snapshots import deployment

            deployment.snapshot(Deployment(settings), directory, show)
    console.print(f"the snapshot lies in {directory}")


@app.command()
def restore(
    config: Config,
    directory: Directory,
    inexact: Annotated[
        bool, typer.Option("--inexact", help="Go on without events that the log no longer holds.")
    ] = False,
    flag: Flags = None,
) -> None:
    """Put back what `reptide snapshot` wrote to DIRECTORY; the stream of CONFIG goes on from there."""
    settings = settings_from(config, flag)
    from streams.operate.snapshots import state_directory
    from streams.pages.progress import working

    with working(console, "restoring") as show:
        if settings.kafka is None:
            state_directory.restore(settings, directory, show)
            said = f"restored to {settings.run.directory}; `reptide run` goes on from there"
        else:
            from streams.assembly.deployed import Deployment
            from streams.operate.snapshots import deployment

            deployment.restore(Deployment(settings), directory, show, inexact)
            said = "restored; start the workers, they go on from there"
    console.print(said)

"""The commands `meta-train` and `evaluate`: theta from examples, or from the episodes of a stream."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streams.cli.arguments import Config, Flags, settings_from
from streams.laboratory import EPISODES

app = typer.Typer()


@app.command("meta-train")
def meta_train(
    config: Config,
    passes: Annotated[
        int, typer.Option(min=1, help="Without [episodes]: how often every episode is trained on.")
    ] = 1,
    flag: Flags = None,
) -> None:
    """Train theta offline: on episodes of [examples] or of [input], as [episodes] says, else on those of the stream.

    Stopped any way you like and started again, training on [episodes] goes on bit for bit. With `torchrun
    --nproc-per-node N -m streams.cli meta-train CONFIG` N processes train side by side.
    """
    settings = settings_from(config, flag)
    from streams.cli import training

    training.meta_train(settings, config, passes)


@app.command()
def evaluate(
    config: Config,
    episodes: Annotated[
        int, typer.Option(min=2, help="Held-out episodes for each number of shots.")
    ] = EPISODES,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the page and its figures; `evaluation` in run.directory.")
    ] = None,
    flag: Flags = None,
) -> None:
    """Judge what `meta-train` trained on held-out tasks, beside baselines; prints a table and writes a page."""
    settings = settings_from(config, flag)
    from streams.cli import training

    training.evaluate(settings, episodes, out)

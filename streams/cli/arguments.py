"""What all commands share: the settings file, its overrides, and where words for people go."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from streams.settings.tree import Settings

console = Console(stderr=True, soft_wrap=True, markup=False, emoji=False, highlight=False)
"""Prints words as they are: what a user wrote is neither cut at a width nor read as markup."""

Config = Annotated[Path, typer.Argument(help="Settings file (TOML).", show_default=False)]
Flags = Annotated[
    list[str] | None, typer.Option("--set", help="Override a setting: section.key=value. May be repeated.")
]


def settings_from(config: Path, flag: list[str] | None) -> Settings:
    """The settings of a file, under the environment and the flags."""
    from streams.settings.tree import load_settings

    return load_settings(config, os.environ, flag or ())

"""What every benchmark shares: its arguments, the machine's description, its table, its figures as JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from streams.system.machine import described_machine, machine

Figure = float | int | str


@dataclass(frozen=True)
class Arguments:
    """The command line of every benchmark."""

    json: Path | None
    """Where to write the figures."""
    quick: bool
    """Whether to run a small version that shows only that it runs."""
    chosen: Mapping[str, str]
    """The word chosen for each further option."""


def arguments(question: str, **choices: Sequence[str]) -> Arguments:
    """Parse `[--json F] [--quick]`, and options that are one of some words, the first of them by default.

    An option without such words is any text, and must be there.
    """
    parser = argparse.ArgumentParser(description=question)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--quick", action="store_true", help="a small version that shows only that it runs")
    for name, words in choices.items():
        given = {"choices": words, "default": words[0]} if words else {"required": True}
        parser.add_argument(f"--{name}", **given)
    parsed = parser.parse_args()
    return Arguments(parsed.json, parsed.quick, {name: getattr(parsed, name) for name in choices})


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[Figure]]) -> None:
    """Print a table, and the machine below it."""
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    for row in rows:
        table.add_row(*(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row))
    console = Console(width=160)
    console.print(table)
    console.print(described_machine())


def write(path: Path | None, figures: Mapping[str, Figure]) -> None:
    """Write flat figures, the machine among them, as JSON; nowhere where no path was given."""
    described = {f"machine.{name}": value for name, value in machine().items()}
    if path is not None:
        path.write_text(json.dumps({**figures, **described}, indent=2) + "\n")

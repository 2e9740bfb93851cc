"""What the command, the settings and the probes know, for the tests that hold the files of `deploy/` to it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer

from streams.cli.app import app
from streams.cli.arguments import settings_from
from streams.settings.overrides import from_environment
from streams.settings.tree import Settings
from streams.settings.values import setting_at

ROOT = Path(__file__).parents[2]


def command_of(arguments: Sequence[str]) -> tuple[str, ...]:
    """The command that some arguments run, without running it.

    Raises:
        AssertionError: there is no such command or option, or a value is wrong or missing.

    """
    ran: list[tuple[str, ...]] = []

    def record(command: Any, path: tuple[str, ...]) -> None:
        for name, inner in getattr(command, "commands", {}).items():
            record(inner, (*path, name))
        if path and not hasattr(command, "commands"):
            command.callback = lambda **_: ran.append(path)

    command = typer.main.get_command(app)
    record(command, ())
    with pytest.raises(SystemExit) as ended:
        command.main(list(arguments))
    assert ended.value.code == 0, arguments
    return ran[0]


def not_settings(variables: Mapping[str, str]) -> list[str]:
    """Which variables with our prefix name no setting."""
    overrides = from_environment(variables)
    security = ("kafka", "security")
    return [
        one.source
        for one in overrides
        if setting_at(Settings, one.keys[:2] if one.keys[:2] == security else one.keys) is None
    ]


def settings_of(
    text: str, variables: Mapping[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """What a process makes of a settings file and its environment."""
    (folder / "reptide.toml").write_text(text, encoding="utf-8")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return settings_from(folder / "reptide.toml", None)


def example() -> str:
    """The settings file that stands, commented out, in values.yaml."""
    values = (ROOT / "deploy/helm/reptide/values.yaml").read_text(encoding="utf-8")
    block = re.search(r"^# settings: \|\n((?:#   .*\n)+)", values, re.MULTILINE)
    assert block is not None
    return re.sub(r"^#   ", "", block[1], flags=re.MULTILINE)

"""deploy/docker/Dockerfile as the tests read it: its lines, its stages, and the variables that one sets."""

from __future__ import annotations

import re

from tests.deploy.command_line import ROOT

DOCKERFILE = (ROOT / "deploy/docker/Dockerfile").read_text(encoding="utf-8")
LINES = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE)).splitlines()
STAGES = {
    text.split("\n")[0].partition(" AS ")[2]: text
    for text in re.split(r"^FROM ", "\n".join(LINES), flags=re.MULTILINE)[1:]
}
"""By name; the last, which is built where none is named, has none."""


def instructions(name: str, lines: list[str] = LINES) -> list[str]:
    return [line.removeprefix(f"{name} ") for line in lines if line.startswith(f"{name} ")]


def environment(stage: str) -> dict[str, str]:
    pairs = [pair for line in instructions("ENV", stage.splitlines()) for pair in line.split()]
    return dict(pair.split("=", 1) for pair in pairs)

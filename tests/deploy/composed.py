"""deploy/compose/compose.yaml as the tests read it: its services, and what each is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.deploy.command_line import ROOT
from tests.deploy.dockerfile import STAGES, environment

FOLDER = ROOT / "deploy/compose"
FILE = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
OURS = [name for name, service in SERVICES.items() if service["image"].startswith("reptide")]
SERVED = [name for name in OURS if "expose" in SERVICES[name]]
"""Those that answer for metrics and probes."""


def binds(name: str) -> dict[str, Path]:
    """Where in the container each file of the repository is."""
    mounts = [mount.split(":") for mount in SERVICES[name].get("volumes", []) if mount[0] == "."]
    return {target: (FOLDER / source).resolve() for source, target, mode in mounts if mode == "ro"}


def stores(name: str) -> dict[str, str]:
    """Where in the container each named volume is."""
    mounts = [mount.split(":") for mount in SERVICES[name].get("volumes", []) if mount[0] != "."]
    return {target: volume for volume, target in mounts}


def variables(name: str) -> dict[str, str]:
    """What its image sets, where the image is ours, and what the service does."""
    of_image = environment(STAGES["reptide"]) if name in OURS else {}
    return {**of_image, **SERVICES[name].get("environment", {})}


def ports(name: str) -> set[str]:
    """On which others reach it."""
    service = SERVICES[name]
    return {*service.get("expose", []), *(port.split(":")[-1] for port in service.get("ports", []))}

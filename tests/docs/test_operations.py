"""What docs/operations.md has a reader type is what the commands take, and what Prometheus then looks for."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import yaml

from streams.settings.tree import load_settings
from tests.deploy.command_line import ROOT, command_of

PAGE = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
LINES = "".join(re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)).splitlines()


def typed(program: str) -> list[list[str]]:
    """The arguments of each line that runs a program, without what is said of it."""
    return [shlex.split(line, comments=True)[1:] for line in LINES if line.startswith(f"{program} ")]


def test_every_command_of_the_page_is_one() -> None:
    commands = {command_of(arguments) for arguments in typed("reptide")}
    assert {("worker",), ("trainer",), ("produce",), ("topics", "create"), ("topics", "check")} <= commands


def test_the_settings_by_hand_are_those_of_the_containers_at_other_addresses(tmp_path: Path) -> None:
    (line,) = [line for line in LINES if line.startswith("sed ")]
    command, written = line.split(" > ")
    done = subprocess.run(shlex.split(command), cwd=ROOT, capture_output=True, check=True)
    (tmp_path / written).write_bytes(done.stdout)
    settings = load_settings(tmp_path / written, {})
    assert settings.kafka and settings.redis and settings.input
    assert settings.kafka.bootstrap == ("localhost:9092",)
    assert settings.redis.url.get_secret_value() == "redis://localhost:6379/0"
    assert f"write_flights(Path('{settings.input.path.relative_to(tmp_path)}'))" in PAGE


def test_the_ports_by_hand_are_those_that_are_scraped() -> None:
    scraped = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    targets = {
        job["job_name"]: [target for group in job["static_configs"] for target in group["targets"]]
        for job in scraped["scrape_configs"]
    }
    started = [
        (arguments[0], arguments[-1]) for arguments in typed("reptide") if arguments[1] == "flights.toml"
    ]
    served = {
        role: [f"localhost:{port.removeprefix('service.port=')}" for name, port in started if name == role]
        for role in ("worker", "trainer")
    }
    assert targets == {f"reptide-{role}": addresses for role, addresses in served.items()}

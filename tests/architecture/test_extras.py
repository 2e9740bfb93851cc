"""No client library is needed but by the commands that use it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SETTINGS = """
[input]
path = "visits.csv"
task = ["user"]
time = "at"
[target]
classes = [0, 1]
[[features]]
encoder = "numeric"
name = "amount"
[kafka]
bootstrap = ["nowhere.invalid:9092"]
client = "confluent"
[redis]
url = "redis://nowhere.invalid:6379/0"
"""

WITHOUT = """
import sys
for name in sys.argv[1].split(","):
    sys.modules[name] = None  # an import of it fails as if it were not installed
sys.argv[1:2] = []
from streams.cli.app import main
main()
"""


def without(libraries: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "shop.toml").write_text(SETTINGS)
    command = [sys.executable, "-c", WITHOUT, libraries, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_help_names_every_command_without_any_client_library(tmp_path: Path) -> None:
    shown = without("kafka,confluent_kafka,redis,optuna,tomlkit", tmp_path, "--help")
    assert shown.returncode == 0
    assert all(command in shown.stdout for command in ("worker", "topics", "tail", "demo-kafka", "tune"))


def test_a_command_names_the_library_that_it_lacks_and_its_extra(tmp_path: Path) -> None:
    ended = without("kafka,confluent_kafka,redis", tmp_path, "worker", "shop.toml")
    assert ended.returncode == 1
    assert "this command needs redis: pip install '.[redis]'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_worker_on_confluent_kafka_imports_no_kafka_python() -> None:
    clients = "streams.logs.kafka.confluent.consumer, streams.logs.kafka.confluent.producer"
    modules = f"streams.assembly.deployed, streams.operate.tail, {clients}"
    program = f"import sys; sys.modules['kafka'] = None\nimport {modules}"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")

"""No client library is needed but by the commands that use it, and no help waits for what a command does."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
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

EXTRAS = "kafka,confluent_kafka,redis,optuna,tomlkit"
SLOW = "torch,numba,numpy,polars,pandas,pyarrow,river,scipy,sklearn,lmdb,orjson"

HELP = """
import sys
import typer
from streams.cli.app import app, main

def asked(command, *path):
    sys.argv = ["reptide", *path, "--help"]
    try:
        main()
    except SystemExit as ended:
        assert ended.code == 0, path
    assert path or "pydantic" not in sys.modules  # by which typer reads the options of a command
    for name, inner in getattr(command, "commands", {}).items():
        asked(inner, *path, name)

asked(typer.main.get_command(app))
"""

WITHOUT = """
import sys
for name in sys.argv[1].split(","):
    sys.modules[name] = None  # an import of it fails as if it were not installed
sys.argv[1:2] = []
"""

THREADS_OF_A_COMMAND = """
from streams.cli.app import main
try:
    main()
finally:
    import torch
    print(torch.get_num_threads())
"""


def without(libraries: str, program: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "shop.toml").write_text(SETTINGS)
    command = [sys.executable, "-c", WITHOUT + program, libraries, *arguments]
    threads = os.environ | {"OMP_NUM_THREADS": "2"}
    return subprocess.run(command, cwd=folder, env=threads, capture_output=True, text=True, check=False)


def test_the_help_of_every_command_loads_no_client_library_and_nothing_slow(tmp_path: Path) -> None:
    shown = without(f"{EXTRAS},{SLOW}", HELP, tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert all(
        command in shown.stdout for command in ("worker", "topics create", "tail", "demo-kafka", "tune")
    )


def test_a_command_names_the_library_that_it_lacks_and_its_extra_and_has_one_thread(tmp_path: Path) -> None:
    ended = without("kafka,confluent_kafka,redis", THREADS_OF_A_COMMAND, tmp_path, "worker", "shop.toml")
    assert ended.returncode == 1
    assert "this command needs redis: pip install '.[redis]'" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == "1\n"


def test_a_worker_on_confluent_kafka_imports_neither_kafka_python_nor_what_numba_compiles_by() -> None:
    import_module("engine.stream.fold")  # whose machine code is on disk now
    clients = "streams.logs.kafka.confluent.consumer, streams.logs.kafka.confluent.producer"
    modules = f"streams.assembly.deployed, streams.operate.tail, {clients}"
    program = (
        f"import sys; sys.modules['kafka'] = None\nimport {modules}\nassert 'scipy.linalg' not in sys.modules"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")

"""The demonstration on Kafka and Redis, over a few days of flights: its answer, and nothing of it left running."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from streams.demo.table import write_flights
from tests.command import reptide
from tests.kafka_brokers import apache_is_asked_for, jars

DEADLINE_S = 60.0


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "streams.cli", *map(str, arguments)]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last days of March, which are not reported, and the first of April, as `reptide demo` leaves them."""
    folder = tmp_path_factory.mktemp("embedded")
    flights = folder / "flights.parquet"
    write_flights(flights)
    days = datetime(2013, 3, 31, tzinfo=UTC), datetime(2013, 4, 3, tzinfo=UTC)
    pl.read_parquet(flights).filter(pl.col("departure").is_between(*days)).write_parquet(flights)
    done = subprocess.run(command("demo", "--out", folder), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (folder / "demo.log").write_text(done.stderr, encoding="utf-8")
    return folder


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.05)


def running() -> dict[int, str]:
    """Every process of this machine, by its number."""
    said = subprocess.run(["ps", "axww", "-o", "pid=,args="], capture_output=True, text=True, check=True)
    lines = (line.split(maxsplit=1) for line in said.stdout.splitlines())
    return {int(line[0]): line[-1] for line in lines}


def processes_of(out: Path) -> dict[int, str]:
    """The roles that run, and the servers that they were told of."""
    config = out / "flights.toml"
    ports = re.findall(r"127\.0\.0\.1:\d+", config.read_text(encoding="utf-8")) if config.exists() else []
    return {
        number: said
        for number, said in running().items()
        if str(config) in said or any(p in said for p in ports)
    }


@pytest.mark.long
def test_the_embedded_run_ends_with_one_sentence_that_says_what_to_do_next(embedded: Path) -> None:
    last = text_of(embedded / "demo.log").splitlines()[-1]
    assert last.startswith("A model of its own for every airport")
    assert f"Open {embedded / 'report.html'} " in last
    assert "`reptide run`" in last


@pytest.mark.long
def test_the_deployment_gives_the_table_of_the_embedded_run_and_rows_that_can_be_folded_again(
    embedded: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    apache: list[str | Path] = ["--jars", jars()] if apache_is_asked_for() else []
    done = subprocess.run(
        command("demo-kafka", "--embedded", embedded, "--out", out, "--rate", "2000", *apache),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"broker: {'Apache Kafka' if apache else 'Tansu'}" in done.stderr
    assert "all 3 rows are the same, bit for bit" in done.stderr
    here = json.loads((out / "demo.json").read_text())
    there = json.loads((embedded / "demo.json").read_text())
    assert here["rows_differing"] == 0
    assert (here["events"], here["labels"]) == (there["events"], there["labels"])
    assert here["base_rate"] == there["base_rate"], "the same labels, each beside its own predictions"
    assert here["embedded"] == there["served"]
    folded = [
        int(re.findall(r"stopped after (\d+)", log.read_text().replace(",", ""))[0])
        for log in out.glob("worker-*.log")
    ]
    assert sum(folded) == here["events"]
    assert min(folded) > 0, "both workers took part"
    assert processes_of(out) == {}


@pytest.mark.long
@pytest.mark.parametrize(
    ("victim", "number", "status", "said"),
    [
        ("demo-kafka", signal.SIGINT, 130, "stopped"),
        ("demo-kafka", signal.SIGTERM, 130, "stopped"),
        ("worker", signal.SIGKILL, 1, "ended with status -9"),
    ],
)
def test_however_it_ends_no_process_is_left(
    embedded: Path, tmp_path: Path, victim: str, number: signal.Signals, status: int, said: str
) -> None:
    out = tmp_path / "out"
    arguments = command("demo-kafka", "--embedded", embedded, "--out", out, "--rate", "50")
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: "worker of group" in text_of(out / "worker-1.log"))
        before = processes_of(out)
        assert len(before) == 5, "broker, Redis, two workers and a trainer"
        worker = next(pid for pid, line in before.items() if " worker " in line)
        os.kill(process.pid if victim == "demo-kafka" else worker, number)
        _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == status, errors
    assert said in errors
    assert "Traceback" not in errors
    assert processes_of(out) == {}


def test_without_the_embedded_run_it_says_what_to_do(tmp_path: Path) -> None:
    done = reptide(tmp_path, "demo-kafka", "--embedded", tmp_path, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert f"reptide demo --out {tmp_path}" in "".join(done.stderr.splitlines())


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""

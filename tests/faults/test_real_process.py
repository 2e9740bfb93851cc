"""Real processes on LMDB and real files, killed with SIGKILL and started again until the stream has ended."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from streams.settings.tree import Settings
from tests.faults.model import Left
from tests.faults.mortal import EFFECTS, live
from tests.faults.shop import counts, counts_of_input, run_to_the_end, shop, what_is_left

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["tests.faults.warmed"])
KILLED, DONE = -signal.SIGKILL, 0


def lived(directory: Path, *until: Any) -> int:
    """Exit status of one process."""
    process = FORKED.Process(target=live, args=(directory, *until))
    process.start()
    process.join()
    return int(process.exitcode or 0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Left:
    """What an uninterrupted run leaves."""
    return run_to_the_end(shop(tmp_path_factory.mktemp("whole")))


@pytest.fixture(scope="module")
def died_of_everything(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A stream on which one process after the other died, each before another kind of effect."""
    directory = tmp_path_factory.mktemp("died")
    settings = shop(directory)
    rng = np.random.default_rng(1)
    for effect in rng.permutation(sorted(EFFECTS)).tolist():
        assert lived(directory, effect, int(rng.integers(0, 2))) == KILLED, effect
    assert lived(directory) == DONE
    return settings


@pytest.fixture(scope="module")
def killed_from_outside(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A stream whose process was killed whenever one of its files had grown by some bytes."""
    directory = tmp_path_factory.mktemp("killed")
    settings = shop(directory)
    rng = np.random.default_rng(2)
    files = [
        settings.run.directory / "outputs" / f"{name}.jsonl" for name in ("predictions", "scores", "episodes")
    ]
    kills = 0
    for _ in count():
        file = files[rng.integers(len(files))]
        target = size(file) + int(rng.integers(1, 12_000))
        process = FORKED.Process(target=live, args=(directory,))
        process.start()
        while size(file) < target and process.is_alive():
            pass
        process.kill()
        process.join()
        assert process.exitcode in (KILLED, DONE)
        kills += process.exitcode == KILLED
        if process.exitcode == DONE:
            break
    assert kills >= 5
    return settings


def size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


@pytest.fixture(params=["died_of_everything", pytest.param("killed_from_outside", marks=pytest.mark.long)])
def survived(request: pytest.FixtureRequest) -> Settings:
    settings: Settings = request.getfixturevalue(request.param)
    return settings


def test_every_row_is_that_of_an_uninterrupted_run_bit_for_bit(survived: Settings, whole: Left) -> None:
    assert what_is_left(survived).rows == whole.rows


def test_every_row_has_counted_each_observation_and_label_of_the_input_once(survived: Settings) -> None:
    assert counts(survived) == counts_of_input(survived)


def test_the_outer_loop_goes_on_bit_for_bit(survived: Settings, whole: Left) -> None:
    left = what_is_left(survived)
    assert left.versions == whole.versions
    assert left.adoptions == whole.adoptions
    assert len(left.versions) > 5


def test_no_output_is_lost_and_every_repeat_is_identical(survived: Settings, whole: Left) -> None:
    assert what_is_left(survived).lines == whole.lines


def test_a_prediction_comes_for_every_observation_and_says_the_same_whenever_it_is_repeated(
    survived: Settings,
) -> None:
    lines = pl.read_ndjson(survived.run.directory / "outputs" / "predictions.jsonl")
    assert len(lines) > lines.n_unique()  # some were repeated
    said = lines.unique().group_by("task", "id").len()
    assert set(said["len"]) == {1}
    assert survived.input
    assert len(said) == pl.read_csv(survived.input.path).height


def test_a_run_that_has_ended_changes_nothing_when_it_is_started_again(
    died_of_everything: Settings, whole: Left
) -> None:
    before = contents(died_of_everything.run.directory, "outputs/*", "theta/*", "position.json")
    assert run_to_the_end(died_of_everything).differs(whole) == []
    assert contents(died_of_everything.run.directory, "outputs/*", "theta/*", "position.json") == before


def contents(directory: Path, *patterns: str) -> dict[Path, bytes]:
    return {path: path.read_bytes() for pattern in patterns for path in directory.glob(pattern)}


@pytest.mark.long
def test_the_command_may_be_killed_as_well(tmp_path: Path, whole: Left) -> None:
    settings = shop(tmp_path)
    command = [sys.executable, "-W", "ignore", "-m", "streams.cli", "run", str(tmp_path / "shop.toml")]
    predictions = settings.run.directory / "outputs" / "predictions.jsonl"
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        while size(predictions) < 10_000 and process.poll() is None:
            time.sleep(0.001)
        process.kill()
    assert process.returncode == KILLED, process.stderr and process.stderr.read()
    assert lived(tmp_path) == DONE
    assert what_is_left(settings).differs(whole) == []

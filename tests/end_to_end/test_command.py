"""The command as a user meets it: what it prints, how it ends, and that it goes on where it stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from engine.traced import Recorded
from streams.stores.checkpoints import DirectoryMeta
from tests.command import reptide

SETTINGS = """
title = "End to end"
[input]
path = "events.parquet"
task = ["task"]
time = "time"
label = "label"
label_time = "known"
[target]
classes = [0, 1]
[model]
hidden = [8]
[inner]
steps = 1
[memory]
support = 4
pending = 4
ttl_s = 1e6
[policy]
every = 4
[outer]
every = 128
[run]
directory = "state"
batch = 64
[[features]]
encoder = "numeric"
name = "a"
[[features]]
encoder = "numeric"
name = "b"
"""


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(3)
    rows = 600
    x = rng.normal(size=(rows, 2))
    task = rng.integers(0, 9, rows)
    pl.DataFrame(
        {
            "task": [f"t{u}" for u in task],
            "time": np.arange(rows) * 10.0,
            "known": np.arange(rows) * 10.0 + rng.uniform(1, 60, rows),
            "label": (x[:, 0] * (1 - 2 * (task % 2)) > 0).astype(int),
            "a": x[:, 0],
            "b": x[:, 1],
        }
    ).write_parquet(tmp_path / "events.parquet")
    (tmp_path / "settings.toml").write_text(SETTINGS, encoding="utf-8")
    return tmp_path


def outcomes(folder: Path, topic: str) -> list[dict[str, object]]:
    path = folder / "state" / "outputs" / f"{topic}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_run_scores_every_label_and_writes_a_report(folder: Path) -> None:
    done = reptide(folder, "run", "settings.toml")
    assert done.returncode == 0, done.stderr
    assert "600 labels scored" in done.stderr
    assert len(outcomes(folder, "predictions")) == 600
    assert sum(line["outcome"] == "scored" for line in outcomes(folder, "scores")) == 600
    assert (folder / "state" / "report.html").exists()


def test_a_second_run_folds_nothing_again(folder: Path) -> None:
    assert reptide(folder, "run", "settings.toml").returncode == 0
    before = outcomes(folder, "scores")
    assert reptide(folder, "run", "settings.toml").returncode == 0
    assert outcomes(folder, "scores") == before


def test_an_interrupted_run_ends_cleanly_and_goes_on_where_it_was(folder: Path) -> None:
    stopped = subprocess.Popen(
        [sys.executable, "-m", "streams.cli", "run", "settings.toml"],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
    )
    written = folder / "state" / "outputs" / "scores.jsonl"
    while stopped.poll() is None and not (written.exists() and written.stat().st_size):
        time.sleep(0.001)
    stopped.send_signal(signal.SIGINT)
    _, said = stopped.communicate()
    assert stopped.returncode in (0, 130)
    assert "Traceback" not in said
    assert stopped.returncode == 0 or "stopped; start it again and it goes on from here" in said
    assert reptide(folder, "run", "settings.toml").returncode == 0
    scored = [line["id"] for line in outcomes(folder, "scores") if line["outcome"] == "scored"]
    assert len(set(scored)) == 600


def test_a_changed_input_is_refused_with_the_way_out(folder: Path) -> None:
    assert reptide(folder, "run", "settings.toml").returncode == 0
    table = pl.read_parquet(folder / "events.parquet")
    table.with_columns(pl.col("a") + 1).write_parquet(folder / "events.parquet")
    done = reptide(folder, "run", "settings.toml")
    assert done.returncode == 1
    assert "run.directory" in done.stderr
    assert "Traceback" not in done.stderr


def test_another_row_layout_is_refused_by_its_setting_and_streamed_in_a_directory_of_its_own(
    folder: Path,
) -> None:
    assert reptide(folder, "run", "settings.toml").returncode == 0
    larger: tuple[str, ...] = ("--set", "memory.pending=7")
    for command in (("inspect", "t1"), ("rebuild",)):
        refused = reptide(folder, *command, "settings.toml", *larger)
        assert refused.returncode == 1
        assert "memory.pending is 7 and was" in refused.stderr
    larger += ("--set", "run.directory=own")
    assert reptide(folder, "run", "settings.toml", *larger).returncode == 0
    described = json.loads(reptide(folder, "inspect", "t1", "settings.toml", *larger).stdout)
    assert described["outcomes"]["predicted"] == described["outcomes"]["scored"] > 0


def test_a_theta_of_another_network_is_refused(folder: Path) -> None:
    assert reptide(folder, "run", "settings.toml").returncode == 0
    done = reptide(folder, "rebuild", "settings.toml", "--set", "model.hidden=[9]")
    assert done.returncode == 1
    assert "model.hidden is [9] and was" in done.stderr


def test_meta_training_publishes_the_first_version(folder: Path) -> None:
    done = reptide(folder, "meta-train", "settings.toml", "--passes", "2")
    assert done.returncode == 0, done.stderr
    assert "version 1 of theta" in done.stderr
    counted = DirectoryMeta(folder / "state" / "theta").load(1).trainer["statistics.count"]
    assert counted.max() <= 600, "an example is counted once, however many passes are made"
    assert reptide(folder, "run", "settings.toml").returncode == 0
    assert outcomes(folder, "predictions")[0]["version"] == 1


def test_a_wrong_setting_is_one_sentence_that_names_its_path(folder: Path) -> None:
    done = reptide(folder, "run", "settings.toml", "--set", "inner.stepz=3")
    assert done.returncode == 1
    assert "inner.stepz" in done.stderr
    assert "Traceback" not in done.stderr


def test_check_reads_own_examples_and_checks_the_network(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "own.npz", x=rng.normal(size=(60, 2)), y=np.arange(60) % 20)
    text = (
        '[examples]\npath = "own.npz"\n[episodes]\nways = 2\nshots = 1\nqueries = 1\n[model]\nhidden = [4]\n'
    )
    (tmp_path / "own.toml").write_text(text, encoding="utf-8")
    done = reptide(tmp_path, "check", "own.toml")
    assert done.returncode == 0, done.stderr
    assert "ok the model draws no random numbers" in done.stderr
    assert "held out 12 of 4 classes" in done.stderr


def test_check_tries_the_learner_as_it_runs_and_records_only_what_it_proves_of_recordings(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded, record = list[str](), Recorded._record

    def noted(of: Recorded, *arguments: Any) -> Any:
        recorded.append(of.function.__qualname__)
        return record(of, *arguments)

    monkeypatch.setattr(Recorded, "_record", noted)
    assert reptide(folder, "check", "settings.toml").returncode == 0
    assert recorded == ["GradientLearner.adapt"]


def test_check_warns_of_a_copy_of_the_label(folder: Path) -> None:
    text = SETTINGS.replace('encoder = "numeric"\nname = "b"', 'encoder = "category"\nname = "label"')
    (folder / "settings.toml").write_text(text, encoding="utf-8")
    done = reptide(folder, "check", "settings.toml")
    assert done.returncode == 0, done.stderr
    assert "warning field 'label' tells the label almost perfectly" in done.stderr
    assert "600, of 9 tasks" in done.stderr


def test_check_of_a_stream_with_episodes_checks_both(folder: Path) -> None:
    text = SETTINGS + "[episodes]\nshots = 4\nqueries = 4\n"
    (folder / "settings.toml").write_text(text, encoding="utf-8")
    done = reptide(folder, "check", "settings.toml")
    assert done.returncode == 0, done.stderr
    assert "held out" in done.stderr
    assert "one task takes" in done.stderr
    done = reptide(folder, "check", "settings.toml", "--set", "input.label_time=knwon")
    assert done.returncode == 1
    assert "knwon" in done.stderr


def test_a_network_may_lie_where_the_command_is_run_and_must_keep_tasks_apart(folder: Path) -> None:
    (folder / "own_networks.py").write_text(
        "from torch import nn\n"
        "def mixing(inputs, outputs):\n"
        "    norm = nn.BatchNorm1d(4, track_running_stats=False)\n"
        "    return nn.Sequential(nn.Linear(inputs, 4), norm, nn.Linear(4, outputs))\n",
        encoding="utf-8",
    )
    command = [str(Path(sys.executable).with_name("reptide")), "run", "settings.toml"]
    flags = ["--set", 'model={"network": "own_networks:mixing"}']
    done = subprocess.run([*command, *flags], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "outputs of a row depend on the other rows of its batch" in done.stderr


def test_a_folder_that_cannot_be_made_is_a_sentence(folder: Path) -> None:
    (folder / "file").write_text("")
    done = reptide(folder, "run", "settings.toml", "--set", f"run.directory={folder / 'file' / 'state'}")
    assert done.returncode == 1
    assert "not a directory" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_names_the_sections_of_the_settings(tmp_path: Path) -> None:
    shown = reptide(tmp_path, "meta-train", "--help").stdout
    assert "[examples]" in shown
    assert "[episodes]" in shown


def test_show_config_prints_every_setting_in_force(folder: Path) -> None:
    shown = json.loads(reptide(folder, "show-config", "settings.toml", "--set", "inner.lr=0.25").stdout)
    unchanged = {"clip": 1.0, "rates": "fixed", "proximal": 0.0, "compile": False}
    assert shown["inner"] == {"steps": 1, "lr": 0.25, **unchanged}
    assert shown["outer"]["every"] == 128

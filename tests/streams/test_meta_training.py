"""Meta-training on own examples: killed and gone on with, over two processes, published, and judged."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from engine.episodes.meta_train import Place, Stretch
from engine.evaluation.episodic.baselines import baselines
from engine.evaluation.episodic.evaluate import Contender, tasks_of
from engine.types import EngineError, Params
from streams.assembly.embedded import embedded
from streams.cli.laboratory import evaluate, meta_train
from streams.errors import CheckpointError, ReptideError, SettingsError, StoreError
from streams.laboratory.assembled import Laboratory, laboratory
from streams.laboratory.evaluation import judge
from streams.laboratory.training import SavedTraining, Watched, train
from streams.settings.tree import load_settings
from streams.stores.checkpoints import DirectoryMeta

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120.0

BLOBS = """
title = "Which blob?"
learner = "prototype"
[examples]
path = "blobs.npz"
[episodes]
ways = 3
shots = 1
queries = 3
rounds = 12
tasks = 4
every = 2
judged = 25
augment = ["noise"]
steps = [0]
[model]
hidden = [8]
width = 4
[outer]
lr = 0.01
"""

SHOP = """
learner = "prototype"
[input]
path = "visits.csv"
task = ["user"]
time = "at"
label = "bought"
[episodes]
shots = 4
queries = 4
temporal = true
rounds = 4
every = 2
tasks = 4
judged = 25
[target]
classes = ["no", "yes"]
[model]
hidden = [4]
[memory]
support = 4
[outer]
every = 64
[[features]]
encoder = "numeric"
name = "price"
"""


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(40), 6)
    x = rng.normal(size=(40, 2))[y] + 0.2 * rng.normal(size=(240, 2))
    np.savez(tmp_path / "blobs.npz", x=x, y=y)
    return tmp_path


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    price = rng.normal(size=200)
    user = np.arange(200) % 10
    bought = np.where((price > 0) == (user % 2 == 0), "yes", "no")
    table = {"user": [f"u{u}" for u in user], "at": np.arange(200.0), "price": price, "bought": bought}
    pl.DataFrame(table).write_csv(tmp_path / "visits.csv")
    (tmp_path / "settings.toml").write_text(SHOP, encoding="utf-8")
    return tmp_path / "settings.toml"


def settings_in(folder: Path, state: str, text: str = BLOBS) -> Path:
    path = folder / f"{state}.toml"
    path.write_text(f'{text}[run]\ndirectory = "{state}"\n', encoding="utf-8")
    return path


def opened(config: Path, *flags: str) -> Laboratory:
    return laboratory(load_settings(config, {}, flags))


def nothing(_step: int, _stretch: Stretch | None) -> None:
    """Shows nothing."""


def trained(config: Path, *flags: str) -> Stretch:
    return train(opened(config, *flags), Place(), nothing)


def equal(a: Params, b: Params) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def same(a: Stretch, b: Stretch) -> bool:
    numbers = [(s.state.step, s.best_loss, s.stale, s.trained_loss, s.held_out_loss) for s in (a, b)]
    tensors = zip(
        (a.state.params, a.state.optimizer, a.best), (b.state.params, b.state.optimizer, b.best), strict=True
    )
    return numbers[0] == numbers[1] and all(equal(*pair) for pair in tensors)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not path.exists():
        assert time.monotonic() < deadline, f"no {path} in time"
        time.sleep(0.02)


# Stopped and gone on with


def test_training_that_was_killed_goes_on_bit_for_bit(blobs: Path) -> None:
    rounds = ("episodes.rounds=4000",)
    config = settings_in(blobs, "killed")
    command = [sys.executable, "-m", "streams.cli", "meta-train", str(config), "--set", *rounds]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        wait_for(blobs / "killed" / "training" / "00000003.theta")
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    stopped = SavedTraining(opened(config)).load()
    assert stopped is not None
    assert 6 <= stopped.stretch.state.step < 4000
    end = f"episodes.rounds={stopped.stretch.state.step + 4}"
    assert same(trained(config, end), trained(settings_in(blobs, "whole"), end))


def test_only_the_newest_stretch_is_kept(blobs: Path) -> None:
    trained(settings_in(blobs, "state"))
    *earlier, kept = sorted((blobs / "state" / "training").glob("*.theta"))
    assert kept.name == "00000006.theta"
    assert [path.stat().st_size for path in earlier] == [0] * 5


def test_a_finished_training_is_not_done_again_and_more_rounds_go_on_with_it(blobs: Path) -> None:
    config = settings_in(blobs, "state")
    first = trained(config)
    assert same(trained(config), first)
    assert same(
        trained(config, "episodes.rounds=16"), trained(settings_in(blobs, "long"), "episodes.rounds=16")
    )


def test_training_ends_where_validation_tasks_tell(blobs: Path) -> None:
    flags = ("outer.lr=1e-12", 'outer.optimizer="SGD"', "episodes.patience=2", "episodes.rounds=99")
    last = trained(settings_in(blobs, "state"), *flags)
    assert last.stale == 2
    assert last.state.step < 99


@pytest.mark.parametrize("flag", ["outer.lr=0.02", "run.seed=1", "episodes.held_out=0.3", "episodes.shots=2"])
def test_a_training_begun_otherwise_is_not_gone_on_with(blobs: Path, flag: str) -> None:
    config = settings_in(blobs, "state")
    trained(config)
    with pytest.raises(SettingsError, match="begun with other"):
        trained(config, flag)


def test_a_training_begun_with_other_examples_is_not_gone_on_with(blobs: Path) -> None:
    config = settings_in(blobs, "state")
    trained(config)
    arrays = dict(np.load(blobs / "blobs.npz"))
    arrays["x"][0, 0] += 1
    np.savez(blobs / "blobs.npz", **arrays)
    with pytest.raises(SettingsError, match="other examples"):
        trained(config)


def test_of_two_that_train_in_one_folder_one_is_refused(blobs: Path) -> None:
    found = opened(settings_in(blobs, "state"))
    late = SavedTraining(found)
    last = train(found, Place(), nothing)
    with pytest.raises(StoreError, match="another process"):
        late.save(last, 1)


# Several processes


@pytest.mark.long
def test_two_processes_train_the_theta_of_one_that_draws_the_episodes_of_both(blobs: Path) -> None:
    # Not Adam, which makes full steps of the rounding in a gradient of zero.
    text = BLOBS.replace("lr = 0.01", 'lr = 0.1\noptimizer = "SGD"')
    config = settings_in(blobs, "both", text)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run(
        [*torchrun, "-m", "tests.streams.distributed_member", str(config), str(blobs)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=PATIENCE_S,
    )
    left, right = (load_file(blobs / f"{rank}-of-2.safetensors") for rank in (0, 1))
    assert equal(left, right)
    alone = trained(settings_in(blobs, "alone", text), "episodes.accumulate=2").state.params
    for name, value in alone.items():
        torch.testing.assert_close(left[name], value)
    one_batch = trained(settings_in(blobs, "one", text)).state.params
    assert not all(torch.allclose(left[name], value) for name, value in one_batch.items())
    with pytest.raises(SettingsError, match="begun by 2 processes and not by 1"):
        trained(config, "episodes.rounds=16")
    assert trained(config).state.step == 12, "with nothing left to train, any number may look"


# The commands


def test_examples_are_trained_on_and_judged_beside_every_baseline(
    blobs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings_in(blobs, "state")
    meta_train(config)
    evaluate(config, episodes=30)
    printed = capsys.readouterr()
    assert "trained 12 rounds" in printed.err
    assert "prototype: meta-trained, 12 rounds." in printed.err
    assert "fine-tuning" in printed.out
    page = json.loads((blobs / "state" / "evaluation" / "evaluation.json").read_bytes())
    assert list(page["evaluation"]["contenders"]) == [
        "prototype",
        "random initialization",
        "transfer",
        "fine-tuning",
        "nearest mean",
        "majority class",
    ]
    assert "Which blob?" in (blobs / "state" / "evaluation" / "evaluation.html").read_text(encoding="utf-8")
    assert not (blobs / "state" / "theta").exists()


def test_nothing_trained_is_nothing_to_evaluate(blobs: Path) -> None:
    with pytest.raises(ReptideError, match="reptide meta-train"):
        evaluate(settings_in(blobs, "state"))


def test_theta_of_a_stream_is_published_once_as_its_first_version(shop: Path) -> None:
    last = trained(shop)
    directory = shop.parent / "reptide-state" / "theta"
    published = DirectoryMeta(directory)
    assert published.current() == 1
    assert equal(dict(published.load(1).params), last.best)
    trained(shop)
    assert DirectoryMeta(directory).current() == 1
    with pytest.raises(ReptideError, match="has a theta already"):
        trained(shop, "episodes.rounds=9")


def test_the_stream_takes_the_theta_that_was_trained_for_its_own(shop: Path) -> None:
    trained(shop)
    program = embedded(load_settings(shop, {}))
    newest = program.trainer.newest()
    program.close()
    assert newest is not None
    assert (newest.version, program.trainer.state(newest).step) == (1, 0)


def test_a_schedule_that_the_stream_would_refuse_is_refused_before_training(shop: Path) -> None:
    with pytest.raises(EngineError, match="needs steps"):
        opened(shop, "outer.schedule=linear")


def test_validation_that_is_never_finite_leaves_no_theta(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.episodes.meta_train.judged", lambda *_: float("nan"))
    with pytest.raises(ReptideError, match="no validation loss was finite in 4 rounds"):
        trained(shop)
    assert not DirectoryMeta(shop.parent / "reptide-state" / "theta").current()


def test_examples_without_episodes_say_what_is_missing(blobs: Path) -> None:
    config = settings_in(blobs, "state", BLOBS.partition("[episodes]")[0])
    with pytest.raises(SettingsError, match=r"\[episodes\]"):
        meta_train(config)


def test_training_that_was_interrupted_says_what_is_saved(blobs: Path) -> None:
    config = settings_in(blobs, "state")
    command = [
        sys.executable,
        "-m",
        "streams.cli",
        "meta-train",
        str(config),
        "--set",
        "episodes.rounds=99999",
    ]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        wait_for(blobs / "state" / "training" / "00000003.theta")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    saved = SavedTraining(opened(config)).load()
    assert saved is not None
    assert f"stopped; {saved.stretch.state.step:,} rounds are saved: start it again" in " ".join(said.split())
    assert "Traceback" not in said


def test_an_evaluation_of_unfinished_training_says_so(
    blobs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings_in(blobs, "state")
    trained(config, "episodes.rounds=4")
    evaluate(config, episodes=30)
    assert "prototype: meta-trained, 4 rounds of 12, unfinished." in capsys.readouterr().err


def test_the_pooled_baseline_sees_as_many_examples_as_training_drew(
    blobs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def spying(spec: Any, examples: Any, source: Any, training: Any, *others: Any) -> list[Contender]:
        seen.append(training)
        return baselines(spec, examples, source, training, *others)

    monkeypatch.setattr("streams.laboratory.judging.baselines", spying)
    text = BLOBS.replace("queries = 3", "queries = 1000\naccumulate = 2")
    config = settings_in(blobs, "state", text)
    trained(config)
    judge(opened(config), 4, lambda *_: None)
    (training,) = seen
    assert (training.rounds, training.batches, training.tasks) == (12, 24, 4)
    assert training.examples == 4 * 3 * 6, "a class has six examples, whatever was asked for"


def test_a_theta_that_another_published_first_is_not_called_the_streams(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    meta_train(shop)
    assert "version 1 of theta is it" in capsys.readouterr().err
    state = shop.parent / "reptide-state"
    other = opened(shop).learner.init(1)
    found = DirectoryMeta(state / "theta").load(1)
    shutil.rmtree(state / "theta")
    assert DirectoryMeta(state / "theta").publish(replace(found, params=other))
    meta_train(shop)
    assert "version 1 of theta is it" not in capsys.readouterr().err


def test_a_rate_that_falls_is_zero_where_training_ends(blobs: Path) -> None:
    found = opened(settings_in(blobs, "state"), "outer.schedule=linear")
    assert found.fit.rate(0) == 0.01
    assert found.fit.rate(12) == 0
    longer = opened(settings_in(blobs, "state"), "outer.schedule=linear", "episodes.rounds=16")
    assert longer.fingerprint != found.fingerprint


def test_a_damaged_training_names_the_folder_to_delete(blobs: Path) -> None:
    config = settings_in(blobs, "state")
    trained(config)
    *_, kept = sorted((blobs / "state" / "training").glob("*.theta"))
    kept.write_bytes(kept.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"training cannot be gone on with.*delete that folder"):
        trained(config)


def test_offline_training_forgets_what_a_killed_one_left(shop: Path) -> None:
    text = (
        shop.read_text().partition("[episodes]")[0] + "[target]" + shop.read_text().partition("[target]")[2]
    )
    shop.write_text(text, encoding="utf-8")
    meta_train(shop)
    state = shop.parent / "reptide-state"
    clean = dict(DirectoryMeta(state / "theta").load(1).params)
    shutil.rmtree(state)
    (state / "meta-train").mkdir(parents=True)
    (state / "meta-train" / "episodes.jsonl").write_text("{}\n", encoding="utf-8")
    meta_train(shop)
    assert equal(dict(DirectoryMeta(state / "theta").load(1).params), clean)


def test_episodes_that_are_watched_are_of_the_tasks_that_they_were(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", x=np.zeros((24, 1)), y=np.arange(24) % 2, task=np.arange(24) // 4)
    (tmp_path / "own.toml").write_text(
        '[examples]\npath = "own.npz"\n[target]\nclasses = [0, 1]\n[episodes]\nshots = 2\nvalidation = 0.0\n'
    )
    source = laboratory(load_settings(tmp_path / "own.toml", {})).taught()
    watched = Watched(source, lambda: None)
    assert tasks_of(watched, 40, seed=0).tolist() == tasks_of(source, 40, seed=0).tolist()
    assert len(set(tasks_of(watched, 40, seed=0))) == 4

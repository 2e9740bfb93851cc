"""Every learner that the settings can name serves a stream: the same promises, kept by the same program."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import polars as pl
import pytest

from engine.learners.base import Learner
from engine.types import SERVED
from streams.assembly import embedded as assembly
from streams.assembly import learners
from streams.assembly.deployed import Deployment
from streams.errors import ReptideError, SettingsError
from streams.laboratory.past import meta_train
from streams.logs.memory import Crash
from streams.operate.inspect import describe_task
from streams.pages.run.evaluation import scores_of
from streams.program.embedded import run
from streams.program.trainer import Trainer
from streams.replay.embedded import rebuild
from streams.settings.tree import Settings, load_settings
from streams.stores.base import Swap
from streams.stores.lmdb import LmdbStore
from tests.faults.model import Left
from tests.faults.shop import run_to_the_end, shop, what_is_left

OBSERVATIONS = 120
SMALL = ("model.width=8", "outer.batch=8")


class Streamed(NamedTuple):
    """A stream that one learner ran to its end, without a break."""

    learner: Learner
    settings: Settings
    left: Left

    def elsewhere(self, directory: Path, *flags: str) -> Settings:
        """The same stream and learner, over another state directory."""
        return of(directory, self.settings.learner, *flags)


def of(directory: Path, learner: str, *flags: str) -> Settings:
    shop(directory, OBSERVATIONS)
    # Left to choose, the trainer may find on so few labels that gradient steps do not pay.
    steps = ["inner.lr=0.1"] * (learner == "gradient")
    return load_settings(directory / "shop.toml", {}, [f"learner={learner}", *SMALL, *steps, *flags])


@pytest.fixture(scope="module", params=sorted(learners.LEARNERS))
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Streamed:
    settings = of(tmp_path_factory.mktemp(request.param), request.param)
    learner = learners.learner(settings, learners.problem_of(settings))
    with pytest.MonkeyPatch.context() as patched:
        share(learner, patched)
        return Streamed(learner, settings, run_to_the_end(settings))


@pytest.fixture
def streamed(kind: Streamed, monkeypatch: pytest.MonkeyPatch) -> Streamed:
    share(kind.learner, monkeypatch)
    return kind


def share(learner: Learner, patched: pytest.MonkeyPatch) -> None:
    """One learner for all programs, so that its tensor functions are recorded once."""
    patched.setattr(learners, "learner", lambda settings, spec: learner)


def test_the_settings_name_it(streamed: Streamed) -> None:
    assert type(streamed.learner) is learners.LEARNERS[streamed.settings.learner]


def test_a_deployment_has_the_same(tmp_path: Path) -> None:
    servers = ('kafka={"bootstrap": ["nowhere:1"]}', 'redis={"url": "redis://nowhere:1/0"}')
    deployment = Deployment(of(tmp_path, "prototype", *servers))
    assert type(deployment.engine.learner) is learners.LEARNERS["prototype"]
    with pytest.raises(SettingsError, match=r"outer\.rule"):
        Deployment(of(tmp_path, "prototype", "outer.rule=reptile", *servers)).engine  # noqa: B018


def test_it_adapts_and_theta_moves(streamed: Streamed) -> None:
    first, *_, last = streamed.left.versions
    assert first != last
    fast = [np.frombuffer(row["fast"], np.float32) for row in streamed.left.rows.values()]
    assert all(np.isfinite(one).all() for one in fast)
    assert len({one.tobytes() for one in fast}) == len(fast)


def test_killed_and_gone_on_with_in_other_batches_it_leaves_the_same_bits(
    streamed: Streamed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = streamed.elsewhere(tmp_path, "run.batch=11")
    swaps = iter(range(9, -1, -1))
    real = LmdbStore.swap

    def dying(store: Any, states: Any) -> list[Swap]:
        if not next(swaps):
            raise Crash("swap")
        return real(store, states)

    with monkeypatch.context() as patched, pytest.raises(Crash):
        patched.setattr(LmdbStore, "swap", dying)
        run_to_the_end(settings)
    assert what_is_left(settings).differs(streamed.left)
    assert run_to_the_end(streamed.elsewhere(tmp_path)).differs(streamed.left) == []


def test_a_row_of_it_can_be_looked_at(streamed: Streamed) -> None:
    assert describe_task(streamed.settings, "user 3/{}")["labels"] > 0


def test_its_rows_come_back_from_the_log_with_the_same_bits(streamed: Streamed) -> None:
    rebuild(streamed.settings, lambda position, progress: None)
    assert what_is_left(streamed.settings).differs(streamed.left) == []


def test_meta_training_publishes_a_theta_to_begin_with(streamed: Streamed, tmp_path: Path) -> None:
    settings = streamed.elsewhere(tmp_path)
    assert "version 1 of theta" in meta_train(settings, 1, lambda passes, progress: None)
    assert len(what_is_left(settings).versions) == 1


def test_meta_training_trains_on_no_task_that_is_held_out_where_there_are_many(
    streamed: Streamed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, many = tmp_path / "few", tmp_path / "many"
    for folder in (few, many):
        folder.mkdir()
    held_out, no_progress = "outer.held_out=0.9999", lambda passes, progress: None
    assert "version 1 of theta" in meta_train(streamed.elsewhere(few, held_out), 1, no_progress)
    monkeypatch.setattr(Trainer, "judging", lambda trainer, labels: {one.task for one in labels})
    with pytest.raises(ReptideError, match="nothing to train on"):
        meta_train(streamed.elsewhere(many, held_out), 1, no_progress)


# What goes with what


def refusal(directory: Path, *flags: str) -> str:
    shop(directory, OBSERVATIONS)
    with pytest.raises(SettingsError) as caught:
        assembly.embedded(load_settings(directory / "shop.toml", {}, flags))
    return str(caught.value)


def test_every_learner_that_settings_may_name_is_wired() -> None:
    named, _ = get_args(Settings.model_fields["learner"].annotation)
    assert set(get_args(named)) == set(learners.LEARNERS)


@pytest.mark.parametrize("rule", learners.STEPPING)
@pytest.mark.parametrize("learner", sorted(learners.LEARNERS.keys() - {"gradient"}))
def test_a_rule_made_of_inner_steps_is_refused_where_none_are_taken(
    tmp_path: Path, learner: str, rule: str
) -> None:
    said = refusal(tmp_path, f"learner={learner}", f"outer.rule={rule}")
    assert all(part in said for part in ("outer.rule", rule, f"learner = '{learner}'"))


def test_implicit_needs_what_holds_the_inner_loop(tmp_path: Path) -> None:
    assert "inner.proximal" in refusal(tmp_path, "outer.rule=implicit")


def test_reptile_learns_no_step_sizes(tmp_path: Path) -> None:
    assert "inner.rates" in refusal(tmp_path, "outer.rule=reptile", "inner.rates=learned")


def test_prototypes_of_a_number_are_refused_by_the_names_of_the_settings(tmp_path: Path) -> None:
    said = refusal(tmp_path, "learner=prototype", 'target={"low": 0, "high": 1}')
    assert said.startswith("learner = 'prototype' does not go with [target]")


# Rare classes

FRAUDS = 0.02
RARE = ("memory.support=16", "policy.every=16", "outer.every=256", "outer.lr=0.01", "drift={}")


def test_prototypes_keep_to_the_base_rate_of_a_rare_class(tmp_path: Path) -> None:
    """The support set is balanced; what is served must not be."""
    rng, payments = np.random.default_rng(7), 4000
    customer, fraud = rng.integers(0, 20, payments), rng.random(payments) < FRAUDS
    columns = {
        "user": [f"customer {n}" for n in customer],
        "at": range(payments),
        "a": rng.normal(size=payments) + 2.5 * fraud * (customer % 2 * 2 - 1),
        "b": rng.normal(size=payments),
        "bought": np.where(fraud, "y", "x"),
        "known_at": range(1, payments + 1),
    }
    settings = of(tmp_path, "prototype", *RARE)
    pl.DataFrame(columns).write_csv(tmp_path / "events.csv")
    program = assembly.embedded(settings)
    run(program, lambda progress: None)
    late = slice(payments // 2, None)
    scores = list(scores_of(program.outputs["scores"], program.engine.spec.problem.target))
    program.close()
    y, loss, served = (
        np.concatenate(parts)[late]
        for parts in zip(
            *((s.labels.y, s.labels.loss, s.labels.prediction[:, SERVED]) for s in scores), strict=True
        )
    )
    rate = y.mean()
    assert rate / 2 < served[:, 1].mean() < rate * 2
    assert loss[:, SERVED].mean() < -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))

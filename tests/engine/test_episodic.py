"""Episodic evaluation: figures by hand, the same episodes for all, and nothing that a query tells another."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache
from statistics import stdev
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from engine.episodes.task_source import ClassEpisodes, Examples, TaskEpisodes
from engine.evaluation.episodic.baselines import (
    PooledTraining,
    SupportGuess,
    Tuning,
    baselines,
    class_of,
    with_tuned_step,
)
from engine.evaluation.episodic.evaluate import BLOCK, Contender, Judging, Setting, evaluate
from engine.evaluation.episodic.report import MARGIN, EpisodicReport, Mode
from engine.evaluation.episodic.scoring import predicted as predicted_by
from engine.evaluation.episodic.scoring import scored
from engine.features.columns import Numeric
from engine.features.encoder import Features
from engine.features.pixels import Pixels
from engine.intervals import estimate, percentiles, student
from engine.learners.base import Learner
from engine.learners.gradient import GradientLearner
from engine.learners.prototype import PrototypeLearner
from engine.outer.base import OuterRule
from engine.outer.descent import FitSettings
from engine.outer.fit import Round, TrainState, fit
from engine.problem import InnerLoop, Problem, normalises_by_batch
from engine.targets import Classification, Regression
from engine.types import Batch, EngineError, Episodes, Fast, Params

FEW = Judging("guess", episodes=30, steps=(0, 2))
WIDTH = 6


def linear(inputs: int, outputs: int) -> nn.Module:
    return nn.Linear(inputs, outputs)


def normed(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.BatchNorm1d(inputs, affine=False, track_running_stats=False), nn.Linear(inputs, outputs)
    )


def problem_of(
    ways: int = 3,
    exchangeable: bool = True,
    network: Callable[[int, int], nn.Module] = linear,
    **options: Any,
) -> Problem:
    features = Features(tuple(Numeric(f"x{i}") for i in range(WIDTH)))
    target = Classification(tuple(range(ways)), exchangeable=exchangeable)
    return Problem(features, target, network, adapts="all", **options)


def blobs(classes: int = 12, each: int = 20, seed: int = 0, apart: float = 1.0) -> Examples:
    """Classes about centres of their own."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(classes), each)
    x = rng.normal(0, apart, (classes, WIDTH))[y] + rng.normal(0, 1, (len(y), WIDTH))
    nothing = np.zeros(len(y))
    return Examples(x.astype(np.float32), y.astype(np.float32), nothing.astype(np.int64), nothing)


def sums(users: int = 8, each: int = 30, seed: int = 0) -> Examples:
    """A regression: every user adds up features by weights of their own."""
    rng = np.random.default_rng(seed)
    task = np.repeat(np.arange(users), each)
    x = rng.normal(0, 1, (len(task), WIDTH))
    y = (x * rng.normal(0, 0.5, (users, WIDTH))[task]).sum(1)
    return Examples(x.astype(np.float32), y.astype(np.float32), task, np.zeros(len(task)))


def guess(problem: Problem) -> Contender:
    return Contender("guess", SupportGuess, problem, {})


def prototypes(problem: Problem) -> Contender:
    return Contender("prototypes", PrototypeLearner, problem, PrototypeLearner(problem).init(0))


def gradient(problem: Problem, name: str = "gradient", **inner: Any) -> Contender:
    problem = replace(problem, inner=replace(InnerLoop(), **inner))
    return Contender(name, GradientLearner, problem, GradientLearner(problem).init(0))


def found(report: EpisodicReport, contender: str, **wanted: int | str) -> list[Any]:
    return [j for j in report.judgements if j["contender"] == contender and wanted.items() <= dict(j).items()]


def predicted(
    built: GradientLearner | PrototypeLearner, theta: dict[str, torch.Tensor], episodes: Episodes
) -> Mapping[Mode, torch.Tensor]:
    return predicted_by(built, theta, episodes, by_batch=normalises_by_batch(built.problem))


class Memoriser:
    """Knows the label of every example it was trained on, and guesses that of others."""

    def __init__(self, problem: Problem, examples: Examples) -> None:
        self.problem, self.known = problem, torch.from_numpy(examples.x)

    def adapt(self, meta: Params, support: Batch) -> Fast:
        return {"x": support.x, "y": support.y}

    def predict(self, meta: Params, fast: Fast, x: torch.Tensor) -> torch.Tensor:
        """The class of the support example whose row in the known table has the same class."""
        known = torch.stack([(row == self.known).all(-1).any() for row in x.flatten(0, 1)]).view(x.shape[:2])
        distance = torch.cdist(x, fast["x"])
        nearest = fast["y"].gather(1, distance.argmin(-1)).long()
        answer = torch.where(known, nearest, torch.zeros_like(nearest))
        return nn.functional.one_hot(answer, self.problem.target.outputs).float()


# Figures by hand


def test_the_interval_is_that_of_a_mean_by_hand() -> None:
    values = [0.2, 0.4, 0.9, 0.5]
    one = estimate(np.array(values), np.arange(4))
    assert one.mean == pytest.approx(0.5)
    assert one.error == pytest.approx(stdev(values) / 2)
    assert one.high - one.mean == pytest.approx(student(3) * stdev(values) / 2)


def test_over_hundreds_of_episodes_the_interval_is_the_normal_one() -> None:
    assert student(599) == pytest.approx(1.96394, abs=1e-5)
    assert student(10**9) == pytest.approx(1.95996, abs=1e-5)


@pytest.mark.parametrize(
    ("freedom", "table"), [(1, 12.706), (2, 4.303), (3, 3.182), (8, 2.306), (20, 2.086), (60, 2.000)]
)
def test_few_tasks_widen_the_interval_as_students_table_says(freedom: int, table: float) -> None:
    assert student(freedom) == pytest.approx(table, rel=0.01)


def test_a_task_drawn_ten_times_is_one_task() -> None:
    once, ten_times = np.array([0.1, 0.5, 0.6]), np.repeat([0.1, 0.5, 0.6], 10)
    assert estimate(ten_times, np.repeat([7, 8, 9], 10)) == pytest.approx(estimate(once, np.arange(3)))
    assert estimate(ten_times, np.arange(30)).error < 0.5 * estimate(once, np.arange(3)).error


def test_percentiles_are_of_episodes_or_of_the_means_of_tasks() -> None:
    values = np.arange(101.0)
    assert percentiles(values, np.arange(101)) == (5.0, 50.0, 95.0)
    assert percentiles(np.array([0.0, 2.0, 10.0, 30.0]), np.array([0, 0, 1, 1]))[1] == 10.5


def test_accuracy_and_log_loss_are_by_hand_and_padding_counts_for_nothing() -> None:
    target = Classification((0, 1), floor=0.1)
    outputs = torch.tensor([[[2.0, 0.0], [0.0, 2.0], [9.0, 0.0]]])
    query = Batch(torch.zeros(1, 3, 1), torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.5, 0.5, 0.0]]))
    p = 0.8 / (1 + math.exp(-2)) + 0.1
    accuracy, log_loss = scored(target, outputs, query)[:, 0]
    assert accuracy == 0.5
    assert log_loss == pytest.approx(-(math.log(p) + math.log(1 - p)) / 2, rel=1e-6)


def test_a_regression_is_judged_by_squared_error_as_served() -> None:
    query = Batch(torch.zeros(1, 2, 1), torch.tensor([[1.0, 3.0]]), torch.full((1, 2), 0.5))
    error = scored(Regression(0, 2), torch.tensor([[[0.0], [9.0]]]), query)
    assert error.tolist() == [[(1 + 1) / 2]]


def test_a_prediction_that_is_not_finite_is_wrong_and_its_loss_has_no_figure() -> None:
    problem = problem_of()

    class Broken(SupportGuess):
        def predict(self, meta: Params, fast: Fast, x: torch.Tensor) -> torch.Tensor:
            return super().predict(meta, fast, x) * math.nan

    contenders = [Contender("broken", Broken, problem, {}), guess(problem)]
    report = evaluate(contenders, [Setting(1, ClassEpisodes(blobs(), 3, 1, 4))], FEW)
    assert found(report, "broken", metric="accuracy")[0]["figures"]["mean"] == 0
    assert found(report, "broken", metric="log_loss")[0]["figures"] is None
    assert found(report, "broken", metric="log_loss")[0]["against_reference"] is None


# What is judged, and how


@cache
def judged() -> EpisodicReport:
    problem = problem_of()
    contenders = [gradient(problem), prototypes(problem), guess(problem)]
    return evaluate(contenders, [Setting(5, ClassEpisodes(blobs(), 3, 5, 4))], FEW)


def test_learners_that_take_steps_are_judged_after_each_number_of_them_and_others_once() -> None:
    report = judged()
    assert [j["steps"] for j in found(report, "gradient", metric="accuracy")] == [0, 2]
    assert [j["headline"] for j in found(report, "gradient", metric="accuracy")] == [False, True]
    assert [j["steps"] for j in found(report, "prototypes", metric="accuracy")] == [None]


def test_no_step_is_theta_and_a_step_is_the_learners_own() -> None:
    problem = problem_of()
    source = ClassEpisodes(blobs(), 3, 1, 4)
    contender = gradient(problem, lr=0.5)
    report = evaluate([contender, guess(problem)], [Setting(1, source)], replace(FEW, episodes=BLOCK))
    learner = GradientLearner(replace(contender.problem, inner=InnerLoop(steps=2, lr=0.5)))
    episodes = source.draw(BLOCK, seed=0, step=0)
    for fast, judgement in (
        (
            {
                name: contender.theta[name].expand(BLOCK, *shape)
                for name, shape in learner.fast_shapes.items()
            },
            0,
        ),
        (learner.adapt(contender.theta, episodes.support), 1),
    ):
        outputs = learner.predict(contender.theta, fast, episodes.query.x)
        by_hand = (outputs.argmax(-1) == episodes.query.y).float().mean()
        mean = found(report, "gradient", metric="accuracy")[judgement]["figures"]["mean"]
        assert mean == pytest.approx(float(by_hand), abs=1e-6)


def test_the_same_seed_finds_the_same_figures_and_another_others() -> None:
    problem = problem_of()
    contenders = [gradient(problem), prototypes(problem), guess(problem)]
    settings = [Setting(5, ClassEpisodes(blobs(), 3, 5, 4))]
    assert evaluate(contenders, settings, FEW) == judged()
    assert evaluate(contenders[1:], settings, replace(FEW, seed=1)).judgements[0] not in judged().judgements


def test_every_contender_meets_the_same_episodes() -> None:
    problem = problem_of()
    twins = [replace(prototypes(problem), name=name) for name in ("one", "two")]
    report = evaluate(twins, [Setting(1, ClassEpisodes(blobs(), 3, 1, 4))], replace(FEW, reference="two"))
    assert found(report, "one", metric="accuracy")[0]["figures"]["p5"] < 1
    assert found(report, "one", metric="accuracy")[0]["against_reference"] == {
        "value": 0,
        "low": 0,
        "high": 0,
    }


def test_a_paired_difference_is_of_the_means_with_an_interval_of_its_own() -> None:
    report = judged()
    one = found(report, "prototypes", metric="accuracy")[0]
    other = found(report, "guess", metric="accuracy")[0]
    gain = one["against_reference"]
    assert gain["value"] == pytest.approx(one["figures"]["mean"] - other["figures"]["mean"])
    assert 0 < gain["low"] < gain["value"] < gain["high"]
    assert other["against_reference"] is None


def test_progress_is_told_every_block() -> None:
    told = []
    source = ClassEpisodes(blobs(), 3, 1, 4)
    evaluate(
        [guess(problem_of())], [Setting(1, source, source)], FEW, lambda done, of: told.append((done, of))
    )
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


class Untold:
    """Draws what a source draws, and does not say which user an episode is of."""

    def __init__(self, source: TaskEpisodes) -> None:
        self.draw = source.draw


def test_episodes_that_repeat_tasks_are_counted_as_so_many_tasks() -> None:
    target = Regression(-5, 5)
    problem = replace(problem_of(), target=target)
    wide, narrow = (
        evaluate([guess(problem)], [Setting(5, source)], replace(FEW, episodes=200))
        for source in (TaskEpisodes(sums(), shots=5), Untold(TaskEpisodes(sums(), shots=5)))
    )
    assert wide.sizes == [{"shots": 5, "tasks": "held out", "episodes": 200, "drawn_from": 8}]
    assert narrow.sizes[0]["drawn_from"] is None
    found = [j["figures"] for r in (wide, narrow) for j in r.judgements]
    width = [figures["high"] - figures["low"] for figures in found if figures]
    assert width[0] > 2 * width[1]


def test_one_task_alone_gives_no_interval_and_is_refused() -> None:
    problem = replace(problem_of(), target=Regression(-5, 5))
    with pytest.raises(EngineError, match="bring examples of more tasks"):
        evaluate([guess(problem)], [Setting(5, TaskEpisodes(sums(users=1), shots=5))], FEW)


def test_ragged_support_sets_are_judged_as_they_are_alone() -> None:
    ragged = ClassEpisodes(blobs(), 3, 2, 4).draw(4, seed=0, step=0)
    weight = ragged.support.weight.clone()
    weight[0, 4:] = 0
    weight[0, :4] = 0.25
    contender = gradient(problem_of(), steps=2)
    learner = GradientLearner(contender.problem)
    episodes = ragged._replace(support=ragged.support._replace(weight=weight))
    together = predicted(learner, contender.theta, episodes)["inductive"]
    alone = Batch(*(column[:1, :4] for column in episodes.support))
    fast = learner.adapt(contender.theta, alone)
    expected = learner.predict(contender.theta, fast, episodes.query.x[:1])
    torch.testing.assert_close(together[:1], expected)


@pytest.mark.parametrize(
    ("contenders", "judging", "said"),
    [
        ([guess(problem_of())], Judging("nobody"), "reference 'nobody'"),
        ([guess(problem_of()), guess(problem_of())], FEW, "different names"),
        ([guess(problem_of()), replace(guess(problem_of(ways=4)), name="b")], FEW, "same target"),
    ],
)
def test_contenders_that_cannot_be_compared_are_refused(
    contenders: list[Contender], judging: Judging, said: str
) -> None:
    with pytest.raises(EngineError, match=said):
        evaluate(contenders, [Setting(1, ClassEpisodes(blobs(), 3, 1, 4))], judging)


@pytest.mark.parametrize("options", [{"episodes": 1}, {"steps": ()}, {"steps": (5, 1)}, {"steps": (-1, 2)}])
def test_a_judging_that_makes_no_sense_is_refused(
    options: dict[str, Any],
) -> None:
    with pytest.raises(EngineError, match="episodes must be at least 2"):
        Judging("guess", **options)


# Meta-overfitting


def test_a_contender_that_memorises_parts_and_an_honest_one_does_not() -> None:
    trained, others = blobs(apart=4.0), blobs(apart=4.0, seed=1)
    problem = problem_of()
    memory = Contender("memory", lambda s: Memoriser(s, trained), problem, {})
    setting = Setting(1, ClassEpisodes(others, 3, 1, 4), ClassEpisodes(trained, 3, 1, 4))
    gaps = {gap["contender"]: gap for gap in evaluate([memory, guess(problem)], [setting], FEW).gaps}
    assert gaps["memory"]["parts"]
    assert gaps["memory"]["training"] > 0.9 > 0.5 > gaps["memory"]["held_out"]
    assert not gaps["guess"]["parts"]
    honest = [prototypes(problem), guess(problem)]
    assert not any(gap["parts"] for gap in evaluate(honest, [setting], FEW).gaps)
    untrained = replace(memory, trained=False)
    assert [gap["contender"] for gap in evaluate([untrained, guess(problem)], [setting], FEW).gaps] == [
        "guess"
    ]


def test_a_difference_within_the_margin_is_no_warning_however_sure() -> None:
    problem = replace(problem_of(ways=2), target=Classification((0, 1)))

    class Sure(SupportGuess):
        """Right on all but every 25th of the held-out queries, whose features are negative."""

        def predict(self, meta: Params, fast: Fast, x: torch.Tensor) -> torch.Tensor:
            wrong = (x[..., 0] < 0) & (torch.arange(x.shape[1]) % 25 == 0)
            right = x[..., 1] > 0
            return nn.functional.one_hot((right ^ wrong).long(), 2).float()

    class Always:
        def __init__(self, sign: int) -> None:
            self.sign = sign

        def draw(self, count: int, *, seed: int, step: int) -> Episodes:
            y = torch.arange(25).float().remainder(2).expand(count, 25)
            x = torch.zeros(count, 25, WIDTH)
            x[..., 0], x[..., 1] = self.sign, y
            batch = Batch(x, y, torch.full((count, 25), 1 / 25))
            return Episodes(batch, batch)

    sure = Contender("guess", Sure, problem, {})
    (gap,) = evaluate([sure], [Setting(1, Always(-1), Always(1))], FEW).gaps
    assert gap["value"] == pytest.approx(0.04)
    assert gap["low"] > 0
    assert gap["value"] < MARGIN
    assert not gap["parts"]


# Batch normalisation


def test_with_batch_normalisation_a_query_is_judged_alone_and_beside_the_others() -> None:
    problem = problem_of(ways=2, network=normed)
    learner = GradientLearner(replace(problem, inner=InnerLoop(steps=0)))
    theta = learner.init(0)
    episodes = ClassEpisodes(blobs(), 2, 2, 3).draw(2, seed=0, step=0)
    modes = predicted(learner, theta, episodes)
    weight, bias = theta["1.1.weight"], theta["1.1.bias"]

    def by_hand(x: torch.Tensor) -> torch.Tensor:
        normal = (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt()
        return normal @ weight.T + bias

    for u in range(2):
        support, queries = episodes.support.x[u], episodes.query.x[u]
        torch.testing.assert_close(modes["transductive"][u], by_hand(queries))
        alone = torch.stack([by_hand(torch.cat([support, query.unsqueeze(0)]))[-1] for query in queries])
        torch.testing.assert_close(modes["inductive"][u], alone)


def test_an_inductive_figure_does_not_change_with_the_other_queries() -> None:
    """Of a learner that embeds all tasks in one call, too."""
    problem = problem_of(network=normed)
    learner = PrototypeLearner(problem)
    theta = learner.init(0)
    episodes = ClassEpisodes(blobs(), 3, 2, 4).draw(3, seed=0, step=0)
    query = episodes.query
    x = query.x.clone()
    x[:, 1:] += 100.0
    altered = episodes._replace(query=query._replace(x=x))
    before, after = (predicted(learner, theta, drawn) for drawn in (episodes, altered))
    torch.testing.assert_close(after["inductive"][:, 0], before["inductive"][:, 0])
    assert not torch.allclose(after["transductive"][:, 0], before["transductive"][:, 0])


def test_only_the_inductive_figure_counts() -> None:
    problem = problem_of(network=normed)
    report = evaluate(
        [gradient(problem), guess(problem_of())], [Setting(2, ClassEpisodes(blobs(), 3, 2, 4))], FEW
    )
    both = found(report, "gradient", steps=2, metric="accuracy")
    assert [(j["mode"], j["headline"], j["against_reference"] is None) for j in both] == [
        ("inductive", True, False),
        ("transductive", False, True),
    ]
    assert {j["mode"] for j in found(report, "guess")} == {"inductive"}


def test_padding_does_not_count_in_the_statistics_of_a_task() -> None:
    learner = GradientLearner(problem_of(network=normed))
    theta = learner.init(0)
    whole = ClassEpisodes(blobs(), 3, 2, 4).draw(2, seed=0, step=0)
    pad = [torch.nn.functional.pad(side.x, (0, 0, 0, 3), value=50.0) for side in whole]
    longer = Episodes(
        *(
            Batch(x, *(torch.nn.functional.pad(column, (0, 3)) for column in side[1:]))
            for x, side in zip(pad, whole, strict=True)
        )
    )
    plain, padded = predicted(learner, theta, whole), predicted(learner, theta, longer)
    for mode, outputs in plain.items():
        torch.testing.assert_close(padded[mode][:, : outputs.shape[1]], outputs)


# Baselines


def built(
    problem: Problem, examples: Examples, source: TaskEpisodes | ClassEpisodes, rounds: int = 60
) -> dict[Any, Any]:
    return {
        one.name: one
        for one in baselines(
            problem,
            examples,
            source,
            PooledTraining(rounds=rounds, outer=FitSettings(lr=0.02)),
            Tuning(source, steps=0, rates=(0.1,), episodes=10),
        )
    }


def hidden(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 8), nn.ReLU(), nn.Linear(8, outputs))


def test_the_pooled_baseline_is_a_classifier_of_all_training_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def spying(
        learner: Learner,
        rule: OuterRule,
        episodes: Iterable[Episodes],
        state: TrainState,
        settings: FitSettings,
    ) -> tuple[TrainState, list[Round]]:
        drawn = list(episodes)
        seen.append((learner, {int(y) for one in drawn for y in one.query.y.flatten()}))
        trained = fit(learner, rule, drawn, state, settings)
        seen.append(trained[0].params)
        return trained

    monkeypatch.setattr("engine.evaluation.episodic.baselines.fit", spying)
    examples = blobs(apart=3.0)
    pooled = built(problem_of(network=hidden), examples, ClassEpisodes(examples, 3, 1, 4), rounds=200)[
        "fine-tuning"
    ]
    (learner, labels), params = seen
    assert learner.problem.target.outputs == 12
    assert labels == set(range(12))
    outputs = learner.shared(params, torch.from_numpy(examples.x))
    assert (outputs.argmax(-1).numpy() == examples.y).mean() > 0.7
    assert torch.equal(pooled.theta["1.0.weight"], params["1.0.weight"])
    assert pooled.theta["1.2.weight"].shape == (3, 8)
    assert not pooled.theta["1.2.weight"].any()


def test_a_class_is_told_apart_by_its_task() -> None:
    """Class 0 of one domain is not class 0 of another."""
    y, task = np.array([0, 1, 0, 1, 0]), np.array([0, 0, 1, 1, 0])
    label, count = class_of(Examples(np.zeros((5, 1), np.float32), y.astype(np.float32), task, np.zeros(5)))
    assert label.tolist() == [0, 1, 2, 3, 0]
    assert count == 4


def test_transfer_adapts_the_head_alone_and_fine_tuning_all() -> None:
    examples = blobs()
    found = built(problem_of(network=hidden), examples, ClassEpisodes(examples, 3, 1, 4), rounds=2)
    assert set(GradientLearner(found["transfer"].problem).fast_shapes) == {"1.2.weight", "1.2.bias"}
    assert len(GradientLearner(found["fine-tuning"].problem).fast_shapes) == 4
    assert found["transfer"].theta is found["fine-tuning"].theta
    untrained = found["random initialization"].theta
    assert torch.equal(
        untrained["1.0.weight"], GradientLearner(problem_of(network=hidden)).init(0)["1.0.weight"]
    )


def test_shared_classes_are_pooled_on_the_episodes_and_keep_their_head() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (400, WIDTH)).astype(np.float32)
    examples = Examples(x, (x[:, 0] > 0).astype(np.float32), np.repeat(np.arange(10), 40), np.zeros(400))
    source = TaskEpisodes(examples, shots=4)
    found = built(problem_of(ways=2, exchangeable=False), examples, source)
    report = evaluate(
        list(found.values()),
        [Setting(4, source)],
        replace(FEW, reference="random initialization", steps=(0,)),
    )
    accuracy = {name: found_mean(report, name) for name in found}
    assert accuracy["transfer"] > 0.9 > 0.65 > accuracy["random initialization"]
    assert not any(name.startswith("2.") for name in found["nearest mean"].theta), (
        "it brings no classes along"
    )


def found_mean(report: EpisodicReport, name: str) -> Any:
    return found(report, name, metric=report.metric, headline=True)[0]["figures"]["mean"]


def test_the_nearest_mean_is_that_of_standardised_features_by_hand() -> None:
    examples = blobs(apart=2.0)
    scaled = examples._replace(x=examples.x * np.array([1e3, 1, 1, 1, 1, 1e-3], np.float32))
    source = ClassEpisodes(scaled, 3, 5, 4)
    nearest = built(problem_of(), scaled, source, rounds=1)["nearest mean"]
    episodes = source.draw(5, seed=3, step=0)
    outputs = predicted(nearest.build(nearest.problem), nearest.theta, episodes)["inductive"]
    spread = torch.from_numpy(scaled.x.std(0))
    rows = episodes.support.x / spread
    means = torch.stack(
        [
            torch.stack([x[y == k].mean(0) for k in range(3)])
            for x, y in zip(rows, episodes.support.y, strict=True)
        ]
    )
    by_hand = torch.cdist(episodes.query.x / spread, means).argmin(-1)
    assert torch.equal(outputs.argmax(-1), by_hand)


def test_the_trivial_guess_is_the_majority_class_or_the_mean_of_the_support() -> None:
    x, weight = torch.zeros(2, 4, WIDTH), torch.tensor([[0.25] * 4, [0.0] * 4])
    batch = Batch(x, torch.tensor([[1.0, 2.0, 1.0, 0.0], [2.0, 2.0, 2.0, 2.0]]), weight)
    classes = SupportGuess(problem_of())
    outputs = classes.predict({}, classes.adapt({}, batch), x)
    assert outputs[0, 0].softmax(-1).tolist() == pytest.approx([2 / 7, 3 / 7, 2 / 7])
    assert outputs[1, 0].softmax(-1).tolist() == pytest.approx([1 / 3] * 3)
    mean = SupportGuess(replace(problem_of(), target=Regression(0, 8)))
    assert mean.predict({}, mean.adapt({}, batch), x)[:, 0, 0].tolist() == [1.0, 4.0]


def test_the_trivial_guess_of_a_balanced_support_set_is_of_the_class_counts_that_it_is_weighed_back_to() -> (
    None
):
    batch = Batch(
        torch.zeros(1, 3, WIDTH), torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[2 / 3, 1 / 3, 0]])
    )
    guess = SupportGuess(problem_of())
    outputs = guess.predict({}, guess.adapt({}, batch), batch.x)
    assert outputs[0, 0].softmax(-1).tolist() == pytest.approx([7 / 15, 5 / 15, 3 / 15])
    mean = SupportGuess(replace(problem_of(), target=Regression(0, 8)))
    assert mean.predict({}, mean.adapt({}, batch), batch.x)[0, 0, 0] == pytest.approx(1 / 3)


def test_a_regression_has_no_nearest_mean_but_that_of_the_support() -> None:
    examples = sums()
    names = list(
        built(replace(problem_of(), target=Regression(-9, 9)), examples, TaskEpisodes(examples), rounds=1)
    )
    assert names == ["random initialization", "transfer", "fine-tuning", "support mean"]


def test_a_step_size_is_chosen_by_what_it_comes_to_and_diverging_ones_lose() -> None:
    examples = sums()
    source = TaskEpisodes(examples, shots=10)
    contender = gradient(replace(problem_of(), target=Regression(-9, 9)), clip=1.0)
    tuning = Tuning(source, steps=3, rates=(1e-4, 0.3, 1e4), episodes=10)
    assert with_tuned_step(contender, tuning).problem.inner.lr == 0.3
    assert with_tuned_step(prototypes(problem_of()), tuning).problem.inner.lr == InnerLoop().lr


def test_pooled_training_of_nothing_is_refused() -> None:
    with pytest.raises(EngineError, match="must be positive"):
        PooledTraining(rounds=0)


# Pictures


def test_images_are_drawn_as_the_first_contender_predicts_them() -> None:
    rng = np.random.default_rng(0)
    x = rng.random((40, 4)).astype(np.float32)
    examples = Examples(
        x, np.repeat(np.arange(4), 10).astype(np.float32), np.zeros(40, np.int64), np.zeros(40)
    )
    problem = replace(problem_of(), features=Features((Pixels("image", 2),)))
    report = evaluate(
        [guess(problem)], [Setting(2, ClassEpisodes(examples, 3, 2, 8))], replace(FEW, pictures=2)
    )
    assert len(report.episodes) == 2
    drawn = report.episodes[0]
    assert [image["label"] for image in drawn["support"]] == [0, 1, 2]
    assert [image["predicted"] for image in drawn["query"]] == [0] * 10
    assert drawn["support"][0]["pixels"][0] in {round(255 * float(v)) for v in x[:, 0]}
    assert judged().episodes == []


def test_settings_of_the_same_shots_are_refused() -> None:
    source, problem = ClassEpisodes(blobs(), 3, 1, 4), problem_of()
    for settings in ([], [Setting(1, source), Setting(1, source)]):
        with pytest.raises(EngineError, match="different numbers of shots"):
            evaluate([guess(problem)], settings, FEW)


def test_domains_that_repeat_widen_the_interval() -> None:
    examples = blobs()
    domains = examples._replace(task=(examples.y % 3).astype(np.int64))
    report = evaluate([guess(problem_of(ways=2))], [Setting(1, ClassEpisodes(domains, 2, 1, 4))], FEW)
    assert report.sizes[0]["drawn_from"] == 3


@pytest.mark.parametrize("options", [{"rates": ()}, {"episodes": 0}, {"steps": -1}])
def test_a_choice_of_nothing_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(EngineError, match="a step size is chosen"):
        Tuning(ClassEpisodes(blobs(), 3, 1, 4), **options)

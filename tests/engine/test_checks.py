"""The conformance checks: they pass what is sound, and catch each way of breaking a promise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import BatchNorm1d
from torch.nn.modules.dropout import Dropout

from engine.checks import detectors, encoders, learners, models, stream
from engine.checks.promises import CheckFailed
from engine.checks.suite import check_detector, check_encoder, check_learner, check_spec, promises_kept
from engine.detectors.detectors import Detector, Never, PageHinkley, Periodic
from engine.detectors.river import River
from engine.features.columns import Category, Cyclic, Encoded, Numeric, Text
from engine.features.encoder import Features
from engine.features.front_end import FrontEnd
from engine.features.history import HistoryColumns
from engine.learners.base import Learner
from engine.learners.gradient import GradientLearner
from engine.problem import Problem
from engine.stream.spec import StreamSpec
from engine.targets import Classification
from engine.types import Batch, Bool, Fast, Float64, Params
from tests.engine.driving import SMALL, SPECS
from tests.varied import varied


@pytest.mark.parametrize("name", ["balanced", "regression", "two buckets"])
def test_a_sound_spec_keeps_every_promise_and_names_them(name: str) -> None:
    promises = check_spec(SPECS[name])
    assert len(promises) == len(set(promises)) > 20
    assert "adapting_twice_gives_the_same_bits" in promises


def test_every_kind_of_column_conforms() -> None:
    columns = (Numeric("n"), Numeric("m", optional=True), Category("c"), Cyclic("h", 24.0), Text("t"))
    assert check_encoder(Features(columns)) == [check.__name__ for check in encoders.ENCODER_CHECKS]


def test_the_work_of_checking_an_encoder_grows_with_its_columns_and_no_faster() -> None:
    def encodings(columns: int) -> int:
        calls = []

        class Counting(Numeric):
            def encode(self, values: Sequence[Any]) -> Encoded:
                calls.append(self.name)
                return super().encode(values)

        check_encoder(Features(tuple(Counting(f"n{i}") for i in range(columns))))
        return len(calls)

    assert encodings(40) == 10 * encodings(4)


def test_promises_are_told_one_after_the_other_as_they_are_kept() -> None:
    features = Features((Numeric("n"), Caching()))
    spec = StreamSpec(Problem(features, Classification(("no", "yes"))))
    told = promises_kept(spec, GradientLearner(spec.problem))
    assert next(told) == "the_encoder_never_raises"
    with pytest.raises(CheckFailed, match="otherwise alone"):
        list(told)


@pytest.mark.parametrize(
    "detector", [PageHinkley(5, 0.0, 1.0), Periodic(7), Never(), River("ADWIN", window=64)]
)
def test_every_detector_conforms(detector: PageHinkley | Periodic | Never | River) -> None:
    assert check_detector(detector) == [check.__name__ for check in detectors.DETECTOR_CHECKS]


def test_every_check_says_what_it_promises() -> None:
    every = [
        *encoders.ENCODER_CHECKS,
        *detectors.DETECTOR_CHECKS,
        *models.MODEL_CHECKS,
        *learners.LEARNER_CHECKS,
        *stream.FOLD_CHECKS,
    ]
    assert all(check.__doc__ for check in every)
    assert len({check.__name__ for check in every}) == len(every)


def test_checks_leave_the_number_of_threads_as_it_was() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        check_detector(Never())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# Models


class Centred(nn.Module):
    """Subtracts the mean over the batch, which batch normalisation without running statistics does too."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.mean(0, keepdim=True)


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


def network(
    layer: type[Branching] | type[Centred] | Callable[..., Dropout] | Callable[..., BatchNorm1d],
) -> Callable[..., nn.Sequential]:
    return lambda inputs, outputs: nn.Sequential(nn.Linear(inputs, 8), layer(), nn.Linear(8, outputs))


def test_batch_normalisation_is_caught_and_the_way_out_named() -> None:
    spec = varied(SMALL, network=network(lambda: nn.BatchNorm1d(8)))
    with pytest.raises(CheckFailed, match=r"running_mean.*use LayerNorm or GroupNorm"):
        check_spec(spec)


def test_dropout_is_caught() -> None:
    with pytest.raises(CheckFailed, match=r"two forward passes.*leave out Dropout"):
        check_spec(varied(SMALL, network=network(lambda: nn.Dropout(0.5))))


def test_a_model_that_mixes_the_events_of_a_batch_is_caught() -> None:
    spec = varied(SMALL, network=network(Centred))
    learner = GradientLearner(spec.problem)
    with pytest.raises(CheckFailed, match="beside other events"):
        learners.an_event_does_not_depend_on_its_block_mates(learner, spec.problem)
    with pytest.raises(CheckFailed, match="examples of weight 0"):
        learners.padding_with_weight_zero_changes_nothing(learner, spec.problem)
    with pytest.raises(CheckFailed):
        check_spec(spec)


def test_what_mixes_behind_a_last_layer_of_zeros_is_caught() -> None:
    with pytest.raises(CheckFailed, match="depend on the other rows"):
        spec = varied(SMALL, wide=True, network=network(Centred))
        models.a_row_does_not_depend_on_its_block_mates(spec.problem)


def test_a_model_that_branches_on_values_is_caught() -> None:
    with pytest.raises(CheckFailed, match="checking that fast parameters are as declared: RuntimeError"):
        check_spec(varied(SMALL, network=network(Branching)))


def test_a_model_of_the_wrong_output_width_is_caught() -> None:
    with pytest.raises(CheckFailed):
        check_spec(varied(SMALL, network=lambda inputs, outputs: nn.Linear(inputs, outputs + 1)))


# Learners


class Mixing(GradientLearner):
    def adapt(self, meta: Params, support: Batch) -> Fast:
        fast = super().adapt(meta, support)
        return {name: value + 1e-6 * value.mean(0, keepdim=True) for name, value in fast.items()}


class MixingOutputs(GradientLearner):
    def predict(self, meta: Params, fast: Fast, x: torch.Tensor) -> torch.Tensor:
        outputs = super().predict(meta, fast, x)
        return outputs + 1e-3 * outputs.mean(0, keepdim=True)


class IgnoringWeights(GradientLearner):
    def adapt(self, meta: Params, support: Batch) -> Fast:
        return super().adapt(meta, support._replace(weight=torch.full_like(support.weight, 0.1)))


class Restless(GradientLearner):
    calls = count()

    def adapt(self, meta: Params, support: Batch) -> Fast:
        shift = next(self.calls)
        return {name: value + shift for name, value in super().adapt(meta, support).items()}


class Writing(GradientLearner):
    def adapt(self, meta: Params, support: Batch) -> Fast:
        for value in meta.values():
            value.add_(1)
        return super().adapt(meta, support)


class Biased(GradientLearner):
    def adapt(self, meta: Params, support: Batch) -> Fast:
        return {name: value + 1 for name, value in super().adapt(meta, support).items()}


class Seedless(GradientLearner):
    def init(self, seed: int) -> dict[str, torch.Tensor]:
        return super().init(int(torch.seed() % 2**31))


class Sick(GradientLearner):
    def init(self, seed: int) -> Params:
        return {name: value / 0 for name, value in super().init(seed).items()}


class WrongShape(GradientLearner):
    def shared(self, meta: Params, x: torch.Tensor) -> torch.Tensor:
        return super().shared(meta, x).unsqueeze(0)


class Undeclared(GradientLearner):
    def adapt(self, meta: Params, support: Batch) -> Fast:
        return dict(reversed(super().adapt(meta, support).items()))


class NaNSlopes(GradientLearner):
    """Finite where it is used, and NaN where it is differentiated: a root at 0."""

    def predict(self, meta: Params, fast: Fast, x: torch.Tensor) -> torch.Tensor:
        outputs = super().predict(meta, fast, x)
        return outputs + (outputs - outputs.detach()).square().sum(-1, keepdim=True).sqrt()


class Otherwise(GradientLearner):
    def adapt_differentiably(self, meta: Params, support: Batch, *, second_order: bool) -> Fast:
        fast = super().adapt_differentiably(meta, support, second_order=second_order)
        return {name: value + 0.1 for name, value in fast.items()}


class OfPadding(GradientLearner):
    """Takes a padded batch without examples for one with some."""

    def adapt(self, meta: Params, support: Batch) -> Fast:
        shift = 0.1 if support.x.shape[1] else 0.0
        return {name: value + shift for name, value in super().adapt(meta, support).items()}


class BakingIn(GradientLearner):
    def adapt(self, meta: Params, support: Batch) -> Fast:
        return super().adapt(meta, support) if float(support.weight.sum()) >= 0 else {}


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (Mixing, learners.a_task_does_not_depend_on_its_block_mates),
        (MixingOutputs, learners.a_task_does_not_depend_on_its_block_mates),
        (IgnoringWeights, learners.padding_with_weight_zero_changes_nothing),
        (Restless, learners.adapting_twice_gives_the_same_bits),
        (Writing, learners.theta_is_left_as_it_is),
        (Biased, learners.an_empty_support_set_predicts_with_theta),
        (Seedless, learners.the_same_seed_gives_the_same_theta),
        (Sick, learners.parameters_are_finite),
        (WrongShape, learners.predictions_have_the_right_shape),
        (Undeclared, learners.fast_parameters_are_as_declared),
        (OfPadding, learners.an_empty_support_set_predicts_with_theta),
        (Restless, learners.recording_changes_no_bit),
        (NaNSlopes, learners.an_outer_rule_adapts_the_same_and_gets_finite_gradients),
        (Otherwise, learners.an_outer_rule_adapts_the_same_and_gets_finite_gradients),
    ],
)
def test_a_learner_that_breaks_a_promise_is_caught_by_the_check_of_that_name(
    broken: Callable[[Problem], Learner], check: Callable[[Learner, Problem], None]
) -> None:
    check(GradientLearner(SMALL.problem), SMALL.problem)
    with pytest.raises(CheckFailed, match="; "):
        check(broken(SMALL.problem), SMALL.problem)
    with pytest.raises(CheckFailed):
        check_learner(broken(SMALL.problem), SMALL)


def test_a_learner_that_reads_values_while_it_is_recorded_is_caught() -> None:
    with pytest.raises(CheckFailed, match="checking that recording changes no bit: RuntimeError"):
        check_learner(BakingIn(SMALL.problem), SMALL)


def test_a_learner_that_mixes_tasks_folds_otherwise_when_cut() -> None:
    with pytest.raises(CheckFailed, match="cut in two"):
        stream.rows_do_not_depend_on_how_the_stream_was_cut(Mixing(SMALL.problem), SMALL)


def test_a_learner_that_remembers_cannot_be_a_cache() -> None:
    class Remembering(GradientLearner):
        seen = 0.0

        def adapt(self, meta: Params, support: Batch) -> Fast:
            self.seen += 1.0
            return {name: value * self.seen for name, value in super().adapt(meta, support).items()}

    with pytest.raises(CheckFailed, match="wiped and recomputed"):
        stream.wiped_fast_parameters_come_back(Remembering(SMALL.problem), varied(SMALL, detector=Never()))


# Detectors


@dataclass
class Broken:
    """A detector outside the scan, to be broken in one way."""

    width: int = 1
    calls: int = 0

    def update(self, state: Float64, losses: Float64) -> Bool:
        return losses > 1


class Counting(Broken):
    def update(self, state: Float64, losses: Float64) -> Bool:
        self.calls += 1
        return np.full(len(losses), self.calls % 7 == 0)


class Sharing(Broken):
    def update(self, state: Float64, losses: Float64) -> Bool:
        state += losses.mean()
        return (state[:, 0] % 1.0) > 0.9


class Dividing(Broken):
    def update(self, state: Float64, losses: Float64) -> Bool:
        with np.errstate(all="ignore"):
            state[:, 0] = losses / state[:, 0] - np.inf
        return np.zeros(len(losses), np.bool_)


class Scalar(Broken):
    def update(self, state: Float64, losses: Float64) -> Any:
        return bool((losses > 1).any())


class Stateless(Broken):
    def __init__(self) -> None:
        super().__init__(width=0)


class Overridden(Periodic):
    """Its `update` is never called, since the scan runs the detector it is derived from."""

    def update(self, state: Float64, losses: Float64) -> Bool:
        return losses > 1


class Outside(Broken):
    """Keeps its count beside the state, by the state's address, so that a stored state starts afresh."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[int, int] = {}
        self.kept: list[Float64] = []

    def update(self, state: Float64, losses: Float64) -> Bool:
        self.kept.append(state)
        self.counts[id(state)] = self.counts.get(id(state), 0) + 1
        return np.full(len(losses), self.counts[id(state)] % 30 == 0)


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (Counting, detectors.the_same_losses_raise_the_same_alarms),
        (Outside, detectors.the_state_is_all_that_a_detector_knows),
        (Sharing, detectors.tasks_do_not_share_a_detector),
        (Dividing, detectors.a_detectors_state_stays_finite),
        (Scalar, detectors.a_detector_answers_one_alarm_a_task),
        (Stateless, detectors.a_detector_answers_one_alarm_a_task),
        (Overridden, detectors.the_scan_raises_the_alarms_of_update),
    ],
)
def test_a_detector_that_breaks_a_promise_is_caught_by_the_check_of_that_name(
    broken: Callable[[], Detector], check: Callable[[Detector], None]
) -> None:
    check(PageHinkley(5, 0.0, 1.0))
    with pytest.raises(CheckFailed, match="; "):
        check(broken())
    with pytest.raises(CheckFailed):
        check_detector(broken())
    with pytest.raises(CheckFailed):
        check_spec(varied(SMALL, detector=broken()))


# Encoders


@dataclass(frozen=True)
class Column:
    """A user's own column, to be broken in one way."""

    name: str = "mine"
    width: int = 1

    def encode(self, values: Sequence[Any]) -> Encoded:
        return Encoded(np.zeros((len(values), 1), np.float32), {})


class Raising(Column):
    def encode(self, values: Sequence[Any]) -> Encoded:
        return Encoded(np.array([[len(value)] for value in values], np.float32), {})


class TooWide(Column):
    def encode(self, values: Sequence[Any]) -> Encoded:
        return Encoded(np.zeros((len(values), 3), np.float32), {})


class Caching(Column):
    def encode(self, values: Sequence[Any]) -> Encoded:
        known: dict[Any, float] = {}
        keys = [value if isinstance(value, bool | float) else None for value in values]
        ids = [known.setdefault(key, float(key is not None and n)) for n, key in enumerate(keys)]
        return Encoded(np.array(ids, np.float32).reshape(-1, 1), {})


@dataclass(frozen=True)
class Exploding(Features):
    """An encoder whose front end makes what is not finite."""

    def front_end(
        self, classes: int | None = 2, history: HistoryColumns | None = None, wide: int = 0
    ) -> FrontEnd:
        front = super().front_end(classes, history, wide)
        front.std.zero_()
        front.mean.copy_(torch.full_like(front.mean, torch.nan))
        return front


def test_a_column_that_raises_is_caught_and_the_field_and_value_named() -> None:
    with pytest.raises(CheckFailed, match=r"field 'mine': encoding None raised TypeError .*return a fault"):
        check_encoder(Features((Numeric("n"), Raising())))


def test_a_column_of_another_width_than_declared_is_caught() -> None:
    with pytest.raises(CheckFailed, match="ValueError"):
        check_encoder(Features((TooWide(),)))


def test_a_column_that_encodes_a_value_by_its_neighbours_is_caught() -> None:
    with pytest.raises(CheckFailed, match="otherwise alone than among others"):
        check_encoder(Features((Caching(),)))


def test_a_front_end_that_is_not_finite_is_caught() -> None:
    with pytest.raises(CheckFailed, match="the front end makes"):
        check_encoder(Exploding((Numeric("n"),)))


def test_an_encoder_of_another_type_than_float32_is_caught() -> None:
    class Doubles(Features):
        def encode(self, rows: Any) -> Encoded:
            encoded = super().encode(rows)
            return Encoded(encoded.x.astype(np.float64), encoded.faults)

    with pytest.raises(CheckFailed, match="instead of float32"):
        check_encoder(Doubles((Numeric("n"),)))

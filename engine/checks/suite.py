"""All the promises that a plug-in of a kind must keep.

`reptide check` runs them on your stream spec, and your own tests may:

    from engine.checks.suite import check_spec

    def test_my_spec_conforms():
        check_spec(my_shop.spec)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from engine.checks.detectors import DETECTOR_CHECKS
from engine.checks.encoders import ENCODER_CHECKS
from engine.checks.learners import LEARNER_CHECKS
from engine.checks.models import MODEL_CHECKS
from engine.checks.promises import run
from engine.checks.stream import FOLD_CHECKS
from engine.detectors.detectors import Detector
from engine.features.encoder import Features
from engine.kernels.kernel import gradient_learner
from engine.learners.base import Learner
from engine.stream.spec import StreamSpec


def check_spec(spec: StreamSpec, learner: Learner | None = None) -> list[str]:
    """Check all that a stream spec names, under a learner (gradient steps if none); returns the promises checked.

    Raises:
        CheckFailed: one of them is broken.

    """
    return list(promises_kept(spec, learner or gradient_learner(spec.problem)))


def promises_kept(spec: StreamSpec, learner: Learner) -> Iterator[str]:
    """The same one promise after the other, as it is checked.

    Raises:
        CheckFailed: one of them is broken.

    """
    groups: tuple[tuple[tuple[Callable[..., None], ...], tuple[Any, ...]], ...] = (
        (ENCODER_CHECKS, (spec.problem.features,)),
        (DETECTOR_CHECKS, (spec.detector,)),
        (MODEL_CHECKS, (spec.problem,)),
        (LEARNER_CHECKS, (learner, spec.problem)),
        (FOLD_CHECKS, (learner, spec)),
    )
    for checks, arguments in groups:
        for check in checks:
            yield from run((check,), *arguments)


def check_encoder(features: Features) -> list[str]:
    """Check an encoder; returns the promises that were checked."""
    return run(ENCODER_CHECKS, features)


def check_detector(detector: Detector) -> list[str]:
    """Check a drift detector; returns the promises that were checked."""
    return run(DETECTOR_CHECKS, detector)


def check_learner(learner: Learner, spec: StreamSpec) -> list[str]:
    """Check a learner on a stream spec, and their fold; returns the promises that were checked."""
    return [*run(LEARNER_CHECKS, learner, spec.problem), *run(FOLD_CHECKS, learner, spec)]

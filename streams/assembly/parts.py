"""Settings to the parts of a stream: its spec, engine and trainer."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from engine.checks.detectors import DETECTOR_CHECKS
from engine.checks.encoders import ENCODER_CHECKS
from engine.checks.learners import LEARNER_CHECKS
from engine.checks.models import MODEL_CHECKS
from engine.checks.promises import run
from engine.detectors import detectors
from engine.detectors.detectors import Detector
from engine.features.encoder import Features
from engine.kernels.kernel import with_kernel
from engine.learners.base import Learner
from engine.outer.online import Online, Rates
from engine.problem import Problem
from engine.stream.fold import Engine
from engine.stream.spec import Memory, Policy, StreamSpec
from streams.assembly import learners, plug_ins
from streams.assembly.learners import ENCODERS, RULES, fit_settings, problem_of, usable
from streams.errors import SettingsError
from streams.program.trainer import Trainer
from streams.settings import learning
from streams.settings.base import is_import_string
from streams.settings.tree import Settings
from streams.stores.versions import MetaStore

DETECTORS: dict[str, Callable[..., Detector]] = {
    "page_hinkley": detectors.PageHinkley,
    "periodic": detectors.Periodic,
    "never": detectors.Never,
}


def stream_spec(settings: Settings, problem: Problem | None = None) -> StreamSpec:
    """The stream spec that the settings describe; `problem` takes the place of theirs."""
    return StreamSpec(
        problem=problem_of(settings) if problem is None else problem,
        memory=Memory(**settings.memory.model_dump(exclude={"support"})),
        policy=Policy(**settings.policy.model_dump()),
        detector=detector(settings.drift),
        share=settings.hedge.share,
    )


def described(settings: Settings) -> tuple[StreamSpec, Learner]:
    """The stream spec that the settings describe, and its learner."""
    spec = stream_spec(settings)
    return spec, learners.learner(settings, spec.problem)


def stream_engine(settings: Settings, spec: StreamSpec, learns: Learner) -> Engine:
    """The engine of a stream, whose parts are checked.

    Raises:
        CheckFailed: the network mixes the tasks of a block, or draws random numbers; or what the settings name by
            import string breaks a promise.

    """
    run(MODEL_CHECKS, spec.problem)
    if own := [column for column in spec.problem.features.columns if type(column) not in ENCODERS.values()]:
        run(ENCODER_CHECKS, Features(tuple(own)))
    if is_import_string(settings.drift.detector):
        run(DETECTOR_CHECKS, spec.detector)
    if is_import_string(settings.learner):
        run(LEARNER_CHECKS, learns, spec.problem)
    return Engine(spec, with_kernel(learns), usable(settings.run.device))


def detector(section: learning.Drift) -> Detector:
    """One of ours by name, any of river's as `river.NAME`, or one of the user's by import string."""
    if is_import_string(section.detector):
        made = plug_ins.built("drift.detector", section.detector, "drift.options", (), section.options)
        return cast(Detector, plug_ins.with_members(made, Detector, "drift.detector", section.detector))
    family, _, name = section.detector.partition(".")
    try:
        if family == "river" and name:
            from engine.detectors.river import River  # imports river, for a second

            return River(name, tuple(sorted(section.options.items())))
        return DETECTORS[section.detector](**section.options)
    except KeyError:
        raise SettingsError(
            f"drift.detector: no {section.detector!r}; there are {', '.join(DETECTORS)}, river.NAME, "
            "and your own as module:class"
        ) from None
    except TypeError as error:
        raise SettingsError(f"drift.options: {error}") from error


def trainer(settings: Settings, spec: StreamSpec, learns: Learner, versions: MetaStore) -> Trainer:
    """The trainer of a stream."""
    outer = settings.outer
    return Trainer(
        spec,
        Online(learns, RULES[outer.rule](), Rates(fit_settings(outer), outer.tables_lr, outer.linear_lr)),
        versions,
        settings.run.seed,
        outer.batch,
        outer.replays,
        outer.held_out,
    )

"""What the scan needs of a stream spec and of a version of theta, as numbers."""

from __future__ import annotations

import numpy as np

from engine.detectors.detectors import in_scan
from engine.learners.base import LABEL_MEAN
from engine.stream import scan_arrays
from engine.stream.predictions import know_nothing
from engine.stream.rounding import past_places
from engine.stream.spec import StreamSpec
from engine.targets import Classification, Regression
from engine.types import EngineError, Meta

LABEL_RATE = "0.label_rate"
"""Theta's buffer that holds the class rates of all tasks."""


def rules_of(spec: StreamSpec) -> scan_arrays.Rules:
    """The numbers of a spec that the compiled scan needs."""
    problem, target = spec.problem, spec.problem.target
    regression = isinstance(target, Regression)
    low, high = (target.low, target.high) if isinstance(target, Regression) else (0.0, 1.0)
    past, detector = problem.history_columns, in_scan(spec.detector)
    return scan_arrays.Rules(
        outputs=target.outputs,
        named=len(target.classes) if isinstance(target, Classification) else 1,
        floor=target.floor if isinstance(target, Classification) else 0.0,
        regression=regression,
        low=float(low),
        high=float(high),
        support=problem.support,
        balanced=spec.memory.balanced and not regression,
        ttl_s=float(spec.memory.ttl_s),
        every=spec.policy.every,
        recent=spec.policy.recent,
        refractory=spec.policy.refractory,
        share=float(spec.share),
        detector_kind=detector.kind,
        detector=detector.parameters,
        writes_history=problem.history is not None,
        hedges=True,
        own_width=past.start,
        label_width=past.label_width,
        numbers=np.array(past.numbers, np.int64),
        by=np.array(past.by, np.int64),
        rounded=past_places(spec),
    )


def version_of(rules: scan_arrays.Rules, meta: Meta) -> scan_arrays.Version:
    """What the scan needs of a version of theta; rates that it has not, or that are not finite, know nothing."""
    known = meta.params.get(LABEL_MEAN if rules.regression else LABEL_RATE)
    nothing = np.empty(rules.outputs, np.float32)
    know_nothing(rules, nothing)
    rates = nothing.astype(np.float64)
    values = None if known is None or not meta.version else known.double().numpy(force=True)
    if values is not None and np.isfinite(values).all():
        rates = values.reshape(-1)
        if len(rates) != rules.outputs:
            raise EngineError(
                f"theta {meta.version} has {len(rates)} label rates, this problem {rules.outputs} outputs; "
                "use a theta that was made for it"
            )
    return scan_arrays.Version(meta.version, np.array(meta.prior, np.float64), rates)

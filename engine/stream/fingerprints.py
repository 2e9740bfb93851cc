"""Fingerprints: short hashes of what gives theta and a row their meaning; part of every key.

Where one differs, what was stored under it would be read wrongly, and is not read at all.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from hashlib import blake2b

from engine.learners.base import Learner

LAYOUT_VERSION = 2
"""Raised whenever the meaning of a row's bytes changes."""


def theta_fingerprint(learner: Learner) -> str:
    """Hash of what gives theta its meaning: learner, encoder, target, history, parameter names and shapes.

    Of a target whose classes may be appended to, it holds how many there may be, and no name: that the names
    stay where they are is for whoever keeps theta to see to.
    """
    spec = learner.spec
    target = {"target": type(spec.target).__name__, **asdict(spec.target)}
    if target.get("reserve"):
        del target["classes"]
    shapes = {name: list(value.shape) for name, value in learner.init(0).items()}
    past = [] if spec.history is None else [spec.history.by, spec.history.numbers]
    return _fingerprint([type(learner).__name__, spec.features.schema(), target, shapes, *past])


def row_fingerprint(learner: Learner) -> int:
    """Hash of what gives a row its meaning: theta's, and everything the layout is derived from."""
    spec = learner.spec
    memory = [spec.memory.support, spec.policy.every, spec.memory.pending, spec.topics]
    detector = [type(spec.detector).__name__, spec.detector.width]
    sizes = {name: list(shape) for name, shape in learner.fast_shapes.items()}
    kept = [] if spec.history is None else [spec.history.slots]
    return int(_fingerprint([LAYOUT_VERSION, theta_fingerprint(learner), memory, detector, sizes, *kept]), 16)


def _fingerprint(value: object) -> str:
    return blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=8).hexdigest()

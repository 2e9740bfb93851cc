"""Theta's fingerprint: a short hash of what gives it its meaning, which every version of theta names.

Where it differs, what was stored under it would be read wrongly, and is not read at all. A row has one of its own
(`engine.stream.layout`), which theta's is part of.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from hashlib import blake2b

from engine.learners.base import Learner


def theta_fingerprint(learner: Learner) -> str:
    """Hash of what gives theta its meaning: learner, encoder, target, history, parameter names and shapes.

    Of a target whose classes may be appended to, it holds how many there may be, and no name: that the names
    stay where they are is for whoever keeps theta to see to.
    """
    problem = learner.problem
    target = {"target": type(problem.target).__name__, **asdict(problem.target)}
    if target.get("reserve"):
        del target["classes"]
    shapes = {name: list(value.shape) for name, value in learner.init(0).items()}
    past = [] if problem.history is None else [problem.history.by, problem.history.numbers]
    return fingerprint([type(learner).__name__, problem.features.schema(), target, shapes, *past])


def fingerprint(value: object) -> str:
    """Hash a value of JSON, in 16 hexadecimal digits."""
    return blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=8).hexdigest()

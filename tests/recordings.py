"""Recordings that engines and learners of one problem share within a process of tests.

Recording a tensor function costs more than all else that a stream of a few hundred events does, and tests
stream the same few problems again and again. A test of what is recorded when has `not_shared` begin a
`Recorded`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import partial
from typing import Any

from engine.networks.mlp import mlp
from engine.problem import Problem
from engine.traced import Recorded

Begin = Callable[..., None]

not_shared: Begin = Recorded.__init__


def shared_among(recordings: dict[Hashable, tuple[dict[Any, Any], Any]]) -> Begin:
    """How a `Recorded` begins that goes on with what another of the same method and problem has recorded."""

    def begin(recorded: Recorded, function: Callable[..., Any], *, compiles: bool = False) -> None:
        not_shared(recorded, function, compiles=compiles)
        owner = definition(getattr(function, "__self__", None))
        if owner is not None:
            own = recorded._recordings, recorded._lock
            recorded._recordings, recorded._lock = recordings.setdefault((function.__func__, owner), own)  # type: ignore[attr-defined]

    return begin


def definition(owner: Any) -> Hashable | None:
    """What a learner, or what trains one, was made of; None where that cannot be told."""
    if hasattr(owner, "learner"):
        learner = definition(owner.learner)
        return learner and (type(owner), learner)
    own = getattr(owner, "__dict__", {})
    problem, changed = (
        own.get("problem"),
        any(callable(own[name]) for name in own if not name.startswith("_")),
    )
    if not isinstance(problem, Problem) or changed:
        return None
    network: Any = problem.network
    options = ""
    if isinstance(network, partial):  # of which no two are equal
        network, options = network.func, repr((network.args, network.keywords))
    numbers = ((name, own[name]) for name in own if isinstance(own[name], int | float))
    made_of = (type(owner), replace(problem, network=mlp), network, options, *numbers)
    try:
        hash(made_of)
    except TypeError:  # as with a detector of a user's own
        return None
    return made_of

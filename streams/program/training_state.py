"""What a version of theta holds for its trainer: the state from which training goes on, bit for bit.

Where more was taught to what is served than to that state (`ahead`), the version holds theta twice.
"""

from __future__ import annotations

from collections.abc import Iterable

from engine.learners.base import below
from engine.outer.fit import Statistics, TrainState
from engine.outer.online import AVERAGED, averaged
from engine.types import Params
from streams.stores.versions import Checkpoint

STATISTICS = ("count", "mean", "m2")


def stored(state: TrainState, ahead: TrainState | None) -> tuple[Params, Params]:
    """What is served, and what a trainer needs beside it to go on from `state`."""
    served = averaged(state if ahead is None else ahead)
    sums = {n: v for n, v in state.sums.items() if ahead is not None or not n.startswith(AVERAGED)}
    trainer = {f"optimizer.{name}": value for name, value in state.optimizer.items()}
    trainer |= {f"sums.{name}": value for name, value in sums.items()}
    kept = "latest" if ahead is None else "whole"
    trainer |= {f"{kept}.{n}": v for n, v in state.params.items() if v is not served[n]}
    return served, trainer | {f"statistics.{name}": getattr(state.statistics, name) for name in STATISTICS}


def restored(version: Checkpoint, names: Iterable[str]) -> TrainState:
    """The state that `stored` was given; `names` are those of theta's values."""
    statistics = Statistics(*(version.trainer[f"statistics.{name}"] for name in STATISTICS))
    optimizer, sums, latest, whole = (
        below(f"{part}.", dict(version.trainer)) for part in ("optimizer", "sums", "latest", "whole")
    )
    other = {**latest, **whole}
    params = {name: other.get(name, version.params[name]) for name in names}
    sums |= {AVERAGED + name: version.params[name] for name in latest}
    return TrainState(params, optimizer, version.numbers["step"], statistics, sums)

"""What is gone of what rows were folded from: asked before any row is touched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import NamedTuple

from streams.errors import InputError
from streams.events.record import Offsets, SourcePosition
from streams.program.schedule import Schedule

TOLD = 3
"""Places that are named one by one."""
PRUNED = "the snapshot was being taken (outer.keep_gib); take another one"


class Extent(NamedTuple):
    """How far back and how far on something reaches, of each place."""

    since: Offsets
    """Where folding again is to begin."""
    start: Offsets
    """The first offset that the log still holds."""
    end: Offsets
    """Its end."""
    through: Offsets
    """What was folded before."""


def gone(extent: Extent, topics: Sequence[str]) -> Iterator[str]:
    """What the log no longer holds, in sentences without an end."""
    for (topic, partition), through in extent.through.items():
        place, name = (topic, partition), f"topic {topics[topic]} partition {partition}"
        since, start, end = (offsets.get(place, 0) for offsets in (extent.since, extent.start, extent.end))
        if start > since and through > since:
            yield f"{name} begins at offset {start}, what came before, from {since} on, is gone by its retention"
        if end < through:
            yield f"{name} ends at offset {end} and was folded up to {through}: it was cut, or created anew"


def forgotten_theta(
    kept: Iterable[SourcePosition], incarnation: int, extent: Extent, schedule: Schedule
) -> Iterator[str]:
    """Of which events the theta is not kept, in sentences without an end; `kept` are the adoptions whose theta is."""
    cells: dict[int, set[int]] = {}
    for at in kept:
        if at.incarnation == incarnation:
            cells.setdefault(at.partition, set()).add(at.offset)
    for (topic, partition), through in extent.through.items():
        since = max(offsets.get((topic, partition), 0) for offsets in (extent.since, extent.start))
        if topic == 0 and through > since:
            first = schedule.cell(since)
            below = _kept_from(cells.get(partition, set()), through, schedule, first)
            if below > since:
                yield f"the theta that partition {partition} was folded under below offset {below} is not kept"


def check_taken(
    adoptions: Mapping[SourcePosition, int],
    incarnation: int,
    positions: Offsets,
    missing: Set[int],
    schedule: Schedule,
) -> None:
    """Refuse a snapshot that lacks what is folded again from its positions on.

    Raises:
        InputError: it was pruned after the positions were read.

    """
    through = {(0, at.partition): 0 for at in adoptions}
    for at in adoptions:
        if at.incarnation == incarnation:
            place = (0, at.partition)
            through[place] = max(through[place], schedule.next(at.offset))
    kept = [at for at, version in adoptions.items() if version not in missing]
    reasons = [*forgotten_theta(kept, incarnation, Extent(positions, {}, {}, through), schedule)]
    if reasons:
        raise InputError(f"{'; '.join(reasons[:TOLD])}: it was pruned while {PRUNED}")


def _kept_from(cells: Set[int], through: int, schedule: Schedule, first: int) -> int:
    """The offset from which on every cell is among `cells`; `first` is the first that is asked for."""
    kept = at = first
    while at < through:
        following = schedule.next(at)
        if at not in cells:
            kept = min(following, through)
        at = following
    return kept


def refuse(reasons: Sequence[str], way_out: str) -> None:
    """Refuse to go on where something is gone.

    Raises:
        InputError: something is.

    """
    if reasons:
        more = f"; and {len(reasons) - TOLD} more" * (len(reasons) > TOLD)
        raise InputError(
            f"the rows cannot be made as they were: {'; '.join(reasons[:TOLD])}{more}. {way_out}"
        )

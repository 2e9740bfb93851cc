"""What is gone of what rows were folded from: asked before any row is touched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from streams.errors import InputError
from streams.logs.base import Offsets, SourcePosition
from streams.schedule import Schedule

TOLD = 3
"""Places that are named one by one."""


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
    adoptions: Mapping[SourcePosition, int],
    incarnation: int,
    extent: Extent,
    missing: set[int],
    schedule: Schedule,
) -> Iterator[str]:
    """Of which events the version of theta is no longer kept, in sentences without an end."""
    cells: dict[int, dict[int, int]] = {}
    for at, version in adoptions.items():
        if at.incarnation == incarnation:
            cells.setdefault(at.partition, {})[at.offset] = version
    for (topic, partition), through in extent.through.items():
        since = max(offsets.get((topic, partition), 0) for offsets in (extent.since, extent.start))
        if topic == 0 and through > since:
            below = _kept_from(cells.get(partition, {}), schedule.cell(since), through, missing)
            if below > since:
                yield f"the theta that partition {partition} was folded under below offset {below} is not kept"


def _kept_from(cells: Mapping[int, int], first: int, through: int, missing: set[int]) -> int:
    """The offset from which on every cell has its version; `first` is the first cell that is asked for."""
    kept = [offset for offset, version in cells.items() if version not in missing]
    lost = max((o for o, version in cells.items() if version in missing and first <= o < through), default=-1)
    if lost < 0 and min(kept, default=through) <= first:
        return 0
    return min((offset for offset in kept if offset > lost), default=through)


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

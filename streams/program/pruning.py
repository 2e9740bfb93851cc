"""Which versions of theta, and which adoptions of them, are no longer kept: so that nothing grows without end.

A row needs no theta but that of the cell that is folded. So a restart needs the newest cells of each partition, and a
rebuild those as far back as it is to be exact. The newest versions are kept as well, which a worker may be about to
adopt. All others were never adopted, and go; of those that were, the oldest go first where they take more room than
`outer.keep_gib`. An adoption goes with its version and takes all before it along, so that what a partition keeps has
no holes; and only so many are kept. Versions belong to every row layout of a stream: what the rows of another were
folded under counts alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from typing import NamedTuple

from streams.events.record import SourcePosition
from streams.events.wording import unheard
from streams.stores.base import RecordStore
from streams.stores.versions import MetaStore

EVERY = 64
"""Versions from one pruning to the next."""
FRESH = 64
"""Of each partition so many of the newest cells are always kept: more than a restart folds again."""
MOST_CELLS = 16_384
"""Adoptions of one partition."""
CELL_BYTES = 83
"""Of one adoption in Redis, measured."""
RECENT = 64
"""Versions that a worker may be about to adopt."""
GIB = 2**30


class Prunable(NamedTuple):
    """What goes."""

    cells: Set[SourcePosition]
    versions: Set[int]
    adopted: int
    """The newest of the versions that were adopted and go; 0: none was."""


def prune(
    store: RecordStore, versions: MetaStore, keep_gib: float, say: Callable[[str], object] = unheard
) -> Prunable:
    """Delete what is not kept; adoptions first, so that none names a version that is gone.

    It is said up to which version rows can no longer be made anew from the log.
    """
    others = store.adoptions_of_other_layouts()
    gone = prunable(store.adoptions(), versions.sizes(), keep_gib * GIB, others)
    if gone.cells:
        store.drop_adoptions(gone.cells)
    if gone.versions:
        versions.drop(gone.versions)
    if gone.adopted:
        say(
            f"versions of theta up to {gone.adopted:,} are no longer kept (outer.keep_gib): rows of before come "
            "back from a snapshot, and no longer from the log alone"
        )
    return gone


class Adoptions(NamedTuple):
    """The adoption table of a store, read once."""

    kept: Mapping[SourcePosition, int]
    """Those whose version is kept."""
    gone: Set[SourcePosition]
    """The others: nothing can be folded there until they are dropped."""


def adoptions_of(store: RecordStore, versions: MetaStore) -> Adoptions:
    """The adoption table, parted by whether theta is still there."""
    adoptions = store.adoptions()
    missing = versions.missing(adoptions.values())
    kept = {at: version for at, version in adoptions.items() if version not in missing}
    return Adoptions(kept, adoptions.keys() - kept.keys())


def most_bytes(keep_gib: float, partitions: int) -> int:
    """What versions and adoptions take in Redis at most, but for the versions that a restart needs."""
    return int(keep_gib * GIB) + partitions * MOST_CELLS * CELL_BYTES


def prunable(
    cells: Mapping[SourcePosition, int],
    sizes: Mapping[int, int],
    most_bytes: float,
    others: Sequence[Mapping[SourcePosition, int]] = (),
) -> Prunable:
    """What goes: `cells` is the adoption table, `others` those of other layouts, `sizes` [bytes] all versions."""
    fresh, old = _by_age(cells)
    newest = max(sizes, default=0)
    needed = {cells[at] for at in fresh} | {v for v in sizes if v > newest - RECENT}
    named = {cells[at] for at in old}
    for table in others:
        needed_there, named_there = ({table[at] for at in part} for part in _by_age(table))
        needed |= needed_there
        named |= named_there
    kept = _fitting(named - needed, needed, sizes, most_bytes)
    dropped = sizes.keys() - needed - kept
    lost = (cells.keys() - fresh - old) | {at for at in old if cells[at] not in kept | needed | {0}}
    return Prunable(_with_earlier(lost, cells.keys() - fresh), dropped, max(dropped & named, default=0))


def _with_earlier(lost: Set[SourcePosition], old: Set[SourcePosition]) -> set[SourcePosition]:
    """The cells that are lost, and those that come before them."""
    last: dict[tuple[int, int], int] = {}
    for at in sorted(lost):
        last[at.incarnation, at.partition] = at.offset
    return {at for at in old if at.offset <= last.get((at.incarnation, at.partition), -1)}


def _by_age(cells: Mapping[SourcePosition, int]) -> tuple[set[SourcePosition], set[SourcePosition]]:
    """The newest cells of each partition, and of the others those that may be kept; whatever the incarnation."""
    partitions: dict[int, list[SourcePosition]] = {}
    for at in sorted(cells, key=lambda at: (cells[at], at.offset), reverse=True):
        partitions.setdefault(at.partition, []).append(at)
    return (
        {at for each in partitions.values() for at in each[:FRESH]},
        {at for each in partitions.values() for at in each[FRESH:MOST_CELLS]},
    )


def _fitting(adopted: Set[int], needed: Set[int], sizes: Mapping[int, int], most_bytes: float) -> set[int]:
    """The newest of the versions that were adopted, as far as there is room beside those that are needed."""
    room = most_bytes - sum(sizes.get(version, 0) for version in needed)
    kept: set[int] = set()
    for version in sorted(adopted & sizes.keys(), reverse=True):
        room -= sizes[version]
        if room < 0:
            break
        kept.add(version)
    return kept

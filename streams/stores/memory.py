"""Rows and versions of theta in a dictionary: for tests, ours and users', with crashes on request.

`before` is called with the name of each effect just before it happens; raising from it is a crash there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from secrets import token_bytes

from engine.stream.layout import Layout
from engine.stream.table import TaskTable, check_layouts
from streams.errors import CheckpointError
from streams.events.record import SourcePosition
from streams.stores.base import SECRET_BYTES, Swap, digest_of, key_of, swapped
from streams.stores.versions import Checkpoint


def _nothing(_: str) -> None:
    """Let every effect happen."""


class MemoryStore:
    """A `RecordStore` that forgets everything when the process ends."""

    def __init__(
        self, before: Callable[[str], None] = _nothing, clock: Callable[[], float] = time.time
    ) -> None:
        self.before, self._clock = before, clock
        self.rows: dict[str, bytes] = {}
        self._adoptions: dict[SourcePosition, int] = {}
        self._partitions = 0
        self._secret = token_bytes(SECRET_BYTES)
        self._forgotten_until: dict[bytes, float] = {}

    def load(self, layout: Layout, tasks: Sequence[str]) -> TaskTable:
        """The rows of tasks, but of those that have a live tombstone; a task never seen is the empty row."""
        self.before("load")
        forgotten = self._forgotten(tasks)
        kept = [task for task in tasks if task not in forgotten]
        return TaskTable.decode(layout, kept, [self.rows.get(key_of(task)) for task in kept])

    def check_layouts(self, layout: Layout) -> None:
        """Refuse a store all of whose rows are of another layout."""
        check_layouts(layout, self.rows.values())

    def swap(self, states: TaskTable) -> list[Swap]:
        """Write each row if the stored one still has the revision that this one carries; raises the revision."""
        read, result = states.rows["revision"].tolist(), list[Swap]()
        with states.next_revision() as written:
            for task, revision, row in zip(states.ids, read, written, strict=True):
                self.before("swap")
                outcome = swapped(self.rows.get(key_of(task)), revision, row)
                if self._forgotten([task]):
                    outcome = Swap.LOST
                if outcome is Swap.OK:
                    self.rows[key_of(task)] = bytes(row)
                result.append(outcome)
        return result

    def adopt(self, positions: Sequence[SourcePosition], version: int) -> list[int]:
        """Record that events from each position on are folded under `version`, unless one is recorded there."""
        self.before("adopt")
        return [self._adoptions.setdefault(at, version) for at in positions]

    def remind(self) -> None:
        """Nothing: what was recorded is not forgotten while a process lives."""
        self.before("remind")

    def confirm(self) -> None:
        """Nothing: there is no other place that it should lie in."""
        self.before("confirm")

    def adoptions(self) -> Mapping[SourcePosition, int]:
        """The whole adoption table: version by position."""
        return dict(self._adoptions)

    def adoptions_of_other_layouts(self) -> Sequence[Mapping[SourcePosition, int]]:
        """None: the rows of one process are of one layout."""
        return ()

    def partitions(self, first: int = 0) -> int:
        """How many partitions the input had when rows were first folded from it; 0 while that is not known."""
        self._partitions = self._partitions or first
        return self._partitions

    def set_partitions(self, count: int) -> None:
        """Record that all rows are folded from an input of so many partitions."""
        self._partitions = count

    def record(self, cells: Mapping[SourcePosition, int]) -> None:
        """Write adoptions, whatever is recorded there."""
        self._adoptions.update(cells)

    def drop_adoptions(self, cells: Set[SourcePosition]) -> None:
        """Delete adoptions."""
        for at in cells:
            del self._adoptions[at]

    def tasks(self) -> Iterator[str]:
        """The key of every row."""
        return iter(sorted(self.rows))

    def put(self, rows: Sequence[tuple[str, bytes]]) -> None:
        """Write rows, by key, whatever is stored."""
        self.rows.update(rows)

    def clear(self) -> None:
        """Drop all rows; adoptions and tombstones stay."""
        self.rows.clear()

    def forget(self, tasks: Set[str], ttl_s: float) -> set[str]:
        """Delete the rows of tasks and keep a tombstone each for `ttl_s`."""
        self.before("forget")
        now = self._clock()
        live = {digest: until for digest, until in self._forgotten_until.items() if until > now}
        self._forgotten_until = live | {digest_of(self._secret, task): now + ttl_s for task in tasks}
        return {task for task in tasks if self.rows.pop(key_of(task), None) is not None}

    def forgotten(self, tasks: Sequence[str]) -> set[str]:
        """Those of tasks that have a live tombstone."""
        return self._forgotten(tasks)

    def _forgotten(self, tasks: Sequence[str]) -> set[str]:
        """What `load`, `swap` and `forgotten` go by."""
        until, now = self._forgotten_until, self._clock()
        return (
            {task for task in tasks if until.get(digest_of(self._secret, task), 0.0) > now}
            if until
            else set()
        )

    def close(self) -> None:
        """Nothing to let go of."""


class MemoryMeta:
    """A `MetaStore` that forgets everything when the process ends."""

    def __init__(self, before: Callable[[str], None] = _nothing) -> None:
        self.before = before
        self._kept: dict[int, Checkpoint] = {}
        self._newest = 0

    @property
    def versions(self) -> list[Checkpoint]:
        """All that are kept, in order."""
        return list(self._kept.values())

    def current(self) -> int:
        """The newest version; 0 while there is none."""
        return self._newest

    def load(self, version: int) -> Checkpoint:
        """One version."""
        if version not in self._kept:
            raise CheckpointError(f"there is no version {version} of theta")
        return self._kept[version]

    def keep(self, checkpoint: Checkpoint) -> None:
        """Take in the newest version of a store of before."""
        self._kept[checkpoint.version] = checkpoint
        self._newest = checkpoint.version

    def missing(self, versions: Iterable[int]) -> set[int]:
        """Those of versions that are not kept."""
        return set(versions) - {0, *self._kept}

    def sizes(self) -> Mapping[int, int]:
        """Bytes of the tensors of each version that is kept."""
        return {
            version: sum(tensor.nbytes for tensor in (*one.params.values(), *one.trainer.values()))
            for version, one in self._kept.items()
        }

    def drop(self, versions: Set[int]) -> None:
        """Delete versions."""
        for version in versions & self._kept.keys():
            del self._kept[version]

    def publish(self, checkpoint: Checkpoint) -> bool:
        """Write a version if its predecessor is the newest."""
        self.before("publish")
        if checkpoint.version != self._newest + 1:
            return False
        self.keep(checkpoint)
        return True

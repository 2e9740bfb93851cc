"""Where rows live; versions of theta: `streams.stores.versions`.

Every write is conditional on what was read, so a client that retries, or a worker that lost its partition
without knowing, cannot undo what another has done.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from enum import Enum
from hashlib import blake2b
from typing import Protocol
from urllib.parse import quote, unquote

from engine.stream.layout import HEAD_BYTES, Layout
from engine.stream.packed import Buffer
from engine.stream.table import TaskTable
from streams.events.record import SourcePosition

LONGEST_KEY = 256
SECRET_BYTES = 32
"""Length of a store's secret, and of the digests that are keyed with it."""


PLAIN = re.compile(rf"[A-Za-z0-9_.-]{{0,{LONGEST_KEY}}}").fullmatch
"""Whether an id is its own key, as most are: what makes a key of any takes ten times as long."""


class Swap(Enum):
    """What became of one conditional write."""

    OK = "ok"
    """Written."""
    ALREADY = "already"
    """This very row is there already: the write is a retry."""
    LOST = "lost"
    """Another writer came first: reload the row and fold again what lies above its position."""


class RecordStore(Protocol):
    """Rows by task, and the adoption table of theta."""

    def load(self, layout: Layout, tasks: Sequence[str]) -> TaskTable:
        """The rows of tasks, but of those that have a live tombstone; a task never seen is the empty row.

        To be asked again where a swap was lost: `swap` may lose for a task as long as its tombstone lives.

        Raises:
            RowError: rows are damaged or of another layout; names each of their tasks.
        """
        ...

    def swap(self, states: TaskTable) -> list[Swap]:
        """Write each row if the stored one still has the revision that this one carries; raises the revision."""
        ...

    def adopt(self, positions: Sequence[SourcePosition], version: int) -> list[int]:
        """Record that events from each position on are folded under `version`, unless a version is recorded there.

        Returns the versions recorded: the first to adopt at a position decides for all.
        """
        ...

    def remind(self) -> None:
        """Record again what this process saw adopted, where a server that was restarted may have forgotten it.

        To be done before anyone else may adopt at the same positions.
        """
        ...

    def confirm(self) -> None:
        """Return once what was written lies where it is to lie before anyone counts on it: on replicas, of a server.

        To be asked before what was folded is committed, by whoever commits it, even where nothing was written.

        Raises:
            Unavailable: not yet; it may be asked again.
        """
        ...

    def adoptions(self) -> Mapping[SourcePosition, int]:
        """The whole adoption table: version by position."""
        ...

    def adoptions_of_other_layouts(self) -> Sequence[Mapping[SourcePosition, int]]:
        """The adoption tables of the same stream under other row layouts, whose rows need the same theta."""
        ...

    def partitions(self, first: int = 0) -> int:
        """How many partitions the input had when rows were first folded from it; 0 while that is not known.

        Where nothing is recorded yet, `first` is.
        """
        ...

    def set_partitions(self, count: int) -> None:
        """Record that all rows are folded from an input of so many partitions."""
        ...

    def drop_adoptions(self, cells: Set[SourcePosition]) -> None:
        """Delete adoptions."""
        ...

    def tasks(self) -> Iterator[str]:
        """The key of every row (see `key_of`)."""
        ...

    def put(self, rows: Sequence[tuple[str, bytes]]) -> None:
        """Write rows, by key, whatever is stored: to restore them."""
        ...

    def clear(self) -> None:
        """Drop all rows; adoptions and tombstones stay."""
        ...

    def forget(self, tasks: Set[str], ttl_s: float) -> set[str]:
        """Delete the rows of tasks so that neither a batch in flight nor a replay brings them back.

        What stays for `ttl_s` is a tombstone each, a keyed hash of the id. Returns those that had a row.
        """
        ...

    def forgotten(self, tasks: Sequence[str]) -> set[str]:
        """Those of tasks that have a live tombstone, of which nothing is to be kept."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...


def key_of(task: str) -> str:
    """A task's key: its id percent-encoded, or the hash of a long one; never a separator, brace or newline."""
    if PLAIN(task):
        return task
    encoded = quote(task, safe="").replace("~", "%7E")  # a tilde marks a hash, which no id may pass for
    if len(encoded) <= LONGEST_KEY:
        return encoded
    return "~" + blake2b(task.encode(), digest_size=32).hexdigest()


def swapped(stored: Buffer | None, revision: int, written: Buffer) -> Swap:
    """Decide a conditional write from the stored row, the revision that was read, and the row to write."""
    if revision_of(stored) == revision:
        return Swap.OK
    return Swap.ALREADY if stored == written else Swap.LOST


def revision_of(stored: Buffer | None) -> int:
    """Revision of an encoded row; 0 for a task never written."""
    return 0 if stored is None else int.from_bytes(stored[16:HEAD_BYTES], "little", signed=True)


def digest_of(secret: bytes, task: str) -> bytes:
    """What a tombstone keeps of an id: without the secret, no guess at the id can be checked."""
    return blake2b(task.encode(), key=secret, digest_size=SECRET_BYTES).digest()


def digest_of_row(secret: bytes, key: str) -> bytes:
    """The same of the task of a row, of which only the key is known: of a long id another digest, of the key."""
    if key.startswith("~"):
        return blake2b(key.encode(), key=secret, digest_size=SECRET_BYTES, person=b"key").digest()
    return digest_of(secret, unquote(key))

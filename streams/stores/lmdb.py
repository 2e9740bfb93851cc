"""Rows in LMDB: the store of a single machine, crash-safe and without a server.

One transaction a batch, so either all rows of a batch are written or none; on disk before it returns.
LMDB leaves what is deleted in free pages and in the slack of others, so a task is forgotten by writing the
rows that stay to a new file, which then takes the place of the old one.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb

from engine.stream.layout import Layout
from engine.stream.table import TaskTable, check_layouts
from streams.errors import StoreError
from streams.events.record import SourcePosition
from streams.stores.base import Swap, key_of, swapped
from streams.stores.coldest import drop_coldest
from streams.stores.lmdb_file import TABLES, environment, write_anew
from streams.stores.lmdb_tombstones import LmdbTombstones
from streams.system.files import keep_names, refusal_of_a_library

ADOPTED = struct.Struct(">QIQ")
"""Key of an adoption: incarnation, partition and offset."""
LOST = (
    "restore a snapshot to another run.directory (`reptide restore`), or move the folder away and have rows made of "
    "the table under the newest theta by `reptide rebuild --inexact`"
)
THROUGH, GONE = b"through", b"gone"
"""Up to which position room was made, and how many tasks went for it, in the table of that."""


class LmdbStore:
    """A `RecordStore` in a directory of its own; one process writes at a time, LMDB's lock sees to it."""

    def __init__(
        self,
        directory: Path,
        max_gib: float = 64.0,
        durable: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.max_gib, self._durable, self._clock = directory, max_gib, durable, clock
        self._in_use = os.open(directory / "in-use", os.O_RDWR | os.O_CREAT)
        fcntl.flock(self._in_use, fcntl.LOCK_SH)  # waits for a process that puts a new file in place
        try:
            self._open()
        except lmdb.Error as error:
            os.close(self._in_use)
            said = refusal_of_a_library(error, directory)
            raise StoreError(f"cannot open the store in {said}; where it is damaged, {LOST}") from error

    def load(self, layout: Layout, tasks: Sequence[str]) -> TaskTable:
        """The rows of tasks, but of those that have a live tombstone; a task never seen is the empty row."""
        with self._env.begin(db=self._rows, buffers=True) as transaction:
            forgotten = self._tombstones.among(transaction, tasks)
            kept = [task for task in tasks if task not in forgotten]
            return TaskTable.decode(layout, kept, [transaction.get(key_of(task).encode()) for task in kept])

    def check_layouts(self, layout: Layout) -> None:
        """Refuse a store all of whose rows are of another layout."""
        with self._env.begin(db=self._rows, buffers=True) as transaction:
            check_layouts(layout, (row for _, row in transaction.cursor()))

    def swap(self, states: TaskTable) -> list[Swap]:
        """Write each row if the stored one still has the revision that this one carries; raises the revision."""
        read, outcomes = states.rows["revision"].tolist(), list[Swap]()
        with states.next_revision(pack=True) as written, self._writing(self._rows) as transaction:
            forgotten = self._tombstones.among(transaction, states.ids)
            for task, revision, row in zip(states.ids, read, written, strict=True):
                key = key_of(task).encode()
                outcome = Swap.LOST if task in forgotten else swapped(transaction.get(key), revision, row)
                if outcome is Swap.OK:
                    transaction.put(key, row)
                outcomes.append(outcome)
        return outcomes

    def adopt(self, positions: Sequence[SourcePosition], version: int) -> list[int]:
        """Record that events from each position on are folded under `version`, unless one is recorded there."""
        keys = [ADOPTED.pack(*at) for at in positions]
        with self._env.begin(db=self._adopted) as transaction:
            known = [transaction.get(key) for key in keys]
        if None not in known:  # as for all batches of a cell but the first, which wait for no writer
            return [int.from_bytes(recorded, "big") for recorded in known]
        with self._writing(self._adopted) as transaction:
            for key in keys:
                transaction.put(key, version.to_bytes(8, "big"), overwrite=False)
            return [int.from_bytes(transaction.get(key), "big") for key in keys]

    def remind(self) -> None:
        """Nothing: what was recorded is not forgotten while a process lives."""

    def confirm(self) -> None:
        """Nothing: what was written is on this disk."""

    def adoptions(self) -> Mapping[SourcePosition, int]:
        """The whole adoption table: version by position."""
        with self._env.begin() as transaction:
            return self._adoptions(transaction)

    def adoptions_of_other_layouts(self) -> Sequence[Mapping[SourcePosition, int]]:
        """None: all rows of a directory are of one layout."""
        return ()

    def drop_adoptions(self, cells: Set[SourcePosition]) -> None:
        """Delete adoptions."""
        with self._writing(self._adopted) as transaction:
            for at in cells:
                transaction.delete(ADOPTED.pack(*at))

    def partitions(self, first: int = 0) -> int:
        """Nothing to record: the log of one process is one partition for ever."""
        return first

    def set_partitions(self, count: int) -> None:
        """Nothing to record."""

    def tasks(self) -> Iterator[str]:
        """The key of every row."""
        with self._env.begin(db=self._rows) as transaction:
            for key in transaction.cursor().iternext(values=False):
                yield key.decode()

    def clear(self) -> None:
        """Drop all rows, and how far room was made among them; adoptions and tombstones stay."""
        with self._writing(None) as transaction:
            transaction.drop(self._rows, delete=False)
            transaction.drop(self._room, delete=False)

    def forget(self, tasks: Set[str], ttl_s: float) -> set[str]:
        """Delete the rows of tasks, keep a tombstone each for `ttl_s`, and leave no file that holds a row or an id.

        Raises:
            StoreError: another process has the store open; nothing was deleted.
        """
        with self._alone():
            with self._writing(self._rows) as transaction:
                self._tombstones.write(transaction, tasks, ttl_s)
                there = {task for task in tasks if transaction.delete(key_of(task).encode())}
            self._rewrite()
        return there

    def forget_coldest(self, layout: Layout, most: int, position: int) -> int:
        """Delete the rows of the coldest tasks where there are more than `most`, all at once; returns how many.

        To be asked where all events below a position are folded, and none from there on; asked again, it deletes
        nothing. No tombstone is kept: such a task may come again, as one never seen. Its bytes stay in free pages for
        a while.
        """
        with self._writing(self._rows) as transaction:
            if self._told_of_room(transaction, THROUGH) >= position:
                return 0
            gone = drop_coldest(transaction, self._rows, layout, most)
            in_all = self._told_of_room(transaction, GONE) + gone
            for name, number in ((THROUGH, position), (GONE, in_all)):
                transaction.put(name, number.to_bytes(8, "big"), db=self._room)
            return gone

    def room_through(self) -> int:
        """The position at which the coldest tasks were deleted last; 0 where none ever was.

        All below it is folded, and must not be folded again, since the rows of what was deleted do not tell.
        """
        with self._env.begin() as transaction:
            return self._told_of_room(transaction, THROUGH)

    def gone_for_room(self) -> int:
        """How many tasks `forget_coldest` has deleted in all; one that came again may have been deleted again."""
        with self._env.begin() as transaction:
            return self._told_of_room(transaction, GONE)

    def forgotten(self, tasks: Sequence[str]) -> set[str]:
        """Those of tasks that have a live tombstone."""
        with self._env.begin() as transaction:
            return self._tombstones.among(transaction, tasks)

    def put(self, rows: Sequence[tuple[str, bytes]]) -> None:
        """Write rows, by key, whatever is stored."""
        with self._writing(self._rows) as transaction:
            for key, row in rows:
                transaction.put(key.encode(), row)

    def copy_to(self, directory: Path) -> Mapping[SourcePosition, int]:
        """Write everything to a directory, as one moment saw it; returns the adoption table of that moment.

        Raises:
            StoreError: there is no room.
        """
        try:
            with self._env.begin() as transaction:
                self._env.copy(str(directory), compact=True, txn=transaction)
                return self._adoptions(transaction)
        except lmdb.Error as error:
            raise StoreError(
                f"the rows in {self.directory} cannot be copied to {directory}: {error}"
            ) from error

    def close(self) -> None:
        """Close the files."""
        self._env.close()
        if self._in_use >= 0:
            os.close(self._in_use)
            self._in_use = -1

    def _open(self) -> None:
        self._env = environment(self.directory, self.max_gib, self._durable)
        self._check_length()
        self._rows, self._adopted, tombstones, self._room = map(self._env.open_db, TABLES)
        self._tombstones = LmdbTombstones(tombstones, self._clock)

    def _check_length(self) -> None:
        """Refuse a file that was cut short: reading its map past its end would end the process."""
        needed = (self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"]
        there = (self.directory / "data.mdb").stat().st_size
        if there < needed:
            self.close()
            raise StoreError(
                f"{self.directory / 'data.mdb'} was cut short: {there:,} bytes of {needed:,} are there; {LOST}"
            )

    def _adoptions(self, transaction: Any) -> Mapping[SourcePosition, int]:
        return {
            SourcePosition._make(ADOPTED.unpack(key)): int.from_bytes(value, "big")
            for key, value in transaction.cursor(db=self._adopted)
        }

    def _told_of_room(self, transaction: Any, name: bytes) -> int:
        return int.from_bytes(transaction.get(name, b"", db=self._room), "big")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While no other process has the store open: it would go on with the file that is replaced."""
        try:
            fcntl.flock(self._in_use, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise StoreError(
                f"another process has the store in {self.directory} open; stop it, and forget the task then"
            ) from error
        finally:
            fcntl.flock(self._in_use, fcntl.LOCK_SH)

    def _rewrite(self) -> None:
        """Write all that there is to a new file, and put it in place of the old; a crash leaves one of the two.

        Not LMDB's own compaction, which copies pages as they are, with what was deleted in their slack.
        """
        draft = self.directory / "rewritten"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        try:
            write_anew(self._env, draft, self.max_gib)
            (draft / "data.mdb").replace(self.directory / "data.mdb")
            keep_names(self.directory)
            self._env.close()
            self._open()
        except (lmdb.Error, OSError) as error:
            raise StoreError(
                f"the row is deleted, but its bytes are still in {self.directory}, which cannot be written anew "
                f"({error}); make room for a second copy of it, and forget the task again"
            ) from error
        finally:
            shutil.rmtree(draft)

    @contextmanager
    def _writing(self, database: Any) -> Iterator[Any]:
        """One transaction; where there is no room for all of it, nothing of it."""
        try:
            with self._env.begin(db=database, write=True, buffers=True) as transaction:
                yield transaction
        except lmdb.MapFullError as error:
            raise StoreError(
                f"the store in {self.directory} has reached its {self.max_gib:g} GiB; "
                "raise `run.max_gib` and start again, nothing is lost"
            ) from error
        except lmdb.Error as error:  # as on a full disk
            raise StoreError(
                f"cannot write the store in {refusal_of_a_library(error, self.directory)}"
            ) from error

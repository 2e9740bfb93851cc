"""Rows in LMDB: the store of a single machine, crash-safe and without a server.

One transaction a batch, so either all rows of a batch are written or none; on disk before it returns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb

from engine.table import Layout, TaskTable
from streams.errors import StoreError
from streams.stores.base import Swap, key_of, swapped

GIB = 2**30


class LmdbStore:
    """A `RecordStore` in a directory of its own; one process writes at a time, LMDB's lock sees to it."""

    def __init__(self, directory: Path, max_gib: float = 64.0, durable: bool = True) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.max_gib = directory, max_gib
        try:
            self._env = lmdb.open(
                str(directory),
                map_size=int(max_gib * GIB),
                max_dbs=2,
                sync=durable,
                readahead=False,
                meminit=False,
            )
            self._rows = self._env.open_db(b"rows")
            self._adopted = self._env.open_db(b"adoptions")
        except lmdb.Error as error:
            raise StoreError(f"cannot open the store in {directory}: {error}") from error

    def load(self, layout: Layout, tasks: Sequence[str]) -> TaskTable:
        """The rows of tasks; a task never seen is the empty row."""
        keys = [key_of(task).encode() for task in tasks]
        with self._env.begin(db=self._rows, buffers=True) as transaction:
            return TaskTable.decode(layout, tasks, [transaction.get(key) for key in keys])

    def swap(self, states: TaskTable) -> list[Swap]:
        """Write each row if the stored one still has the revision that this one carries; raises the revision."""
        read = states.rows["revision"].tolist()
        written = states.encode(raise_revision=True)
        with self._writing(self._rows) as transaction:
            return [
                _swap_one(transaction, key_of(task).encode(), revision, row)
                for task, revision, row in zip(states.ids, read, written, strict=True)
            ]

    def adopt(self, partition: int, position: int, version: int) -> int:
        """Record that events from `position` on are folded under `version`, unless one is recorded there."""
        key = partition.to_bytes(4, "big") + position.to_bytes(8, "big")
        with self._writing(self._adopted) as transaction:
            transaction.put(key, version.to_bytes(8, "big"), overwrite=False)
            return int.from_bytes(transaction.get(key), "big")

    def adoptions(self, partition: int) -> Mapping[int, int]:
        """The adoption table of one partition: version by position."""
        with self._env.begin(db=self._adopted) as transaction:
            return {
                int.from_bytes(key[4:], "big"): int.from_bytes(value, "big")
                for key, value in transaction.cursor()
                if key[:4] == partition.to_bytes(4, "big")
            }

    def tasks(self) -> Iterator[str]:
        """The key of every row."""
        with self._env.begin(db=self._rows) as transaction:
            for key in transaction.cursor().iternext(values=False):
                yield key.decode()

    def clear(self) -> None:
        """Forget all rows; adoptions stay."""
        with self._writing(None) as transaction:
            transaction.drop(self._rows, delete=False)

    def close(self) -> None:
        """Close the files."""
        self._env.close()

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


def _swap_one(transaction: Any, key: bytes, revision: int, row: memoryview) -> Swap:
    stored = transaction.get(key)
    outcome = swapped(stored, revision, row)
    if outcome is Swap.OK:
        transaction.put(key, row)
    return outcome

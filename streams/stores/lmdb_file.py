"""A file of LMDB: opened with a limit, and all that is in one written to another."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import lmdb

GIB = 2**30
TABLES = (b"rows", b"adopted", b"tombstones", b"room")
AT_ONCE = 10_000


def environment(directory: Path, max_gib: float, durable: bool) -> Any:
    """Open the file of a directory, or make it."""
    return lmdb.open(
        str(directory), map_size=int(max_gib * GIB), max_dbs=len(TABLES), sync=durable, readahead=False
    )


def write_anew(source: Any, directory: Path, max_gib: float) -> None:
    """Write every table to a new file in another directory, item by item, so that nothing deleted comes along."""
    with environment(directory, max_gib, True) as env, source.begin(buffers=True) as transaction:
        for name in TABLES:
            items = iter(transaction.cursor(db=source.open_db(name, transaction)))
            table = env.open_db(name)
            while _append(env, table, items):
                pass


def _append(env: Any, table: Any, items: Iterator[tuple[memoryview, memoryview]]) -> bool:
    """Write the next items, in one transaction; false where there were none."""
    with env.begin(db=table, write=True) as transaction:
        return bool(transaction.cursor().putmulti(islice(items, AT_ONCE), append=True)[0])

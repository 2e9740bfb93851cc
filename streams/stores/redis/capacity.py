"""Whether Redis has room for the rows, and would keep them: asked at start, said in sentences."""

from __future__ import annotations

from dataclasses import dataclass

from streams.errors import StoreError
from streams.stores.redis.server import RedisServer

MIB = 2**20
ENTRY_BYTES, SLOT_BYTES, OBJECT_BYTES, STRING_BYTES = 24, 16, 16, 6
"""A key's entry in Redis' table, its share of the table's slots, and the headers of a value and of a string."""
TYPICAL_KEY = 64
"""Characters of `reptide:STREAM:LAYOUT:t:TASK`, for an id of usual length."""

SAID = {"maxmemory", "maxmemory_policy", "used_memory", "mem_allocator", "aof_enabled"}


@dataclass(frozen=True)
class Capacity:
    """What Redis says of its memory, summed over the primaries; None where it does not say."""

    address: str
    row_bytes: int
    """What one task takes, its key and Redis' own structures included."""
    expires: bool
    """Whether rows have a time to live."""
    used_bytes: int | None = None
    max_bytes: int | None = None
    """0: no limit."""
    policy: str | None = None
    """What is evicted where memory ends; of several, one that is not noeviction."""
    beside_bytes: int = 0
    """What versions of theta and adoptions take at most."""
    appendonly: bool | None = None
    appendfsync: str | None = None

    @property
    def rows(self) -> int | None:
        """How many rows fit in all; None: unknown, or no limit."""
        return max(0, self.max_bytes - self.beside_bytes) // self.row_bytes if self.max_bytes else None

    @property
    def evicts_rows(self) -> bool:
        """Whether the server may drop rows without a word."""
        policy = self.policy or ""
        return self.max_bytes != 0 and policy.startswith(
            "allkeys" if not self.expires else ("allkeys", "volatile")
        )


def capacity(server: RedisServer, row_size: int, ttl_s: int, beside_bytes: int = 0) -> Capacity:
    """Ask for it; `row_size` is the layout's bytes a task, `beside_bytes` what is no row."""
    told = server.each_if_allowed("INFO")
    if not told or any(SAID - one.keys() for one in told):
        return Capacity(server.address, bytes_of_a_row(row_size, bool(ttl_s)), bool(ttl_s))
    policies = sorted({one["maxmemory_policy"] for one in told} - {"noeviction"})
    fsync = {one["appendfsync"] for one in server.each_if_allowed("CONFIG GET", "appendfsync")}
    limits = [one["maxmemory"] for one in told]
    return Capacity(
        server.address,
        bytes_of_a_row(row_size, bool(ttl_s), told[0]["mem_allocator"]),
        bool(ttl_s),
        used_bytes=sum(one["used_memory"] for one in told),
        max_bytes=sum(limits) if all(limits) else 0,
        beside_bytes=beside_bytes,
        policy=policies[0] if policies else "noeviction",
        appendonly=all(one["aof_enabled"] for one in told),
        appendfsync=fsync.pop() if len(fsync) == 1 else None,
    )


def warnings(capacity: Capacity, tasks: int) -> list[str]:
    """What an operator should know before so many tasks come.

    Raises:
        StoreError: rows could be evicted, which would undo what was learned without a word.
    """
    at = f"Redis at {capacity.address}"
    if capacity.evicts_rows:
        raise StoreError(
            f"{at} evicts rows when its memory is full (`maxmemory-policy {capacity.policy}`), and a task would "
            "silently start anew; run `CONFIG SET maxmemory-policy noeviction`: a full server then makes "
            "workers wait, and nothing is lost"
        )
    if capacity.max_bytes is None:
        unknown = f"{at} does not say how much memory it has and what it evicts (INFO is forbidden, or cut)"
        return [f"{unknown}; see that its maxmemory-policy is noeviction"]
    needed = tasks * capacity.row_bytes + capacity.beside_bytes
    said = []
    if capacity.max_bytes == 0:
        said.append(f"{at} has no memory limit; set `maxmemory`, or the machine runs out of memory instead")
    elif needed > capacity.max_bytes:
        said.append(
            f"{tasks:,} tasks of {capacity.row_bytes:,} bytes and {capacity.beside_bytes / MIB:,.0f} MiB for "
            f"versions of theta (outer.keep_gib) and adoptions need {needed / MIB:,.0f} MiB, and {at} has "
            f"{capacity.max_bytes / MIB:,.0f}: {capacity.rows:,} fit; raise `maxmemory` or add shards"
        )
    if not capacity.appendonly:
        said.append(
            f"{at} keeps no append-only file: when it stops, what was learned is lost; set `appendonly yes`"
        )
    elif capacity.appendfsync not in ("everysec", "always"):
        said.append(
            f"{at} may lose more than a second when it dies (`appendfsync {capacity.appendfsync or 'unknown'}`); "
            "see that it is everysec or always"
        )
    return said


def bytes_of_a_row(row_size: int, expires: bool, allocator: str = "jemalloc") -> int:
    """What one row takes in Redis: key, value, and an entry in its table, and in that of expiries."""
    entries = (2 if expires else 1) * (_allocated(ENTRY_BYTES, allocator) + SLOT_BYTES)
    sizes = TYPICAL_KEY + STRING_BYTES, OBJECT_BYTES, row_size + STRING_BYTES
    return entries + sum(_allocated(size, allocator) for size in sizes)


def _allocated(size: int, allocator: str) -> int:
    """What is given for a request: jemalloc has four sizes between each power of two and the next."""
    if not allocator.startswith("jemalloc"):
        return -(-(size + 8) // 16) * 16
    step = max(16, 1 << max(0, (size - 1).bit_length() - 3))
    return -(-size // step) * step

"""What kafka-python 3.0 does otherwise than Java's and librdkafka's members in a rebalance, put right.

It joins while it is polled, and leaves the answer of the group to the next poll: whoever polls for a moment at a
time, and folds a batch in between, met two faults.
"""

# ruff: noqa: SLF001 - no public way reaches what is put right

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kafka import KafkaConsumer

JOIN_MS = 10
"""Enough to send what is due; what has not come by then is waited for by the next poll."""


def take_joins_that_are_done(consumer: KafkaConsumer, shared: Callable[[], None]) -> None:
    """Have an assignment that came between two polls taken by the second; `shared` is told of each.

    Left alone, it is thrown away and the group joined once more; where the leader does so, all others have to join
    again as well, without end where each of them is late once in a while. And a leader that joined since partitions
    were added forgets, once it has shared them out, that it waits for its own, and is never heard of again.
    """
    coordinator, come = consumer._coordinator, list[bytes]()
    join, complete = coordinator._do_join_and_sync_async, coordinator._on_join_complete_async

    async def join_once() -> bytes:
        """Ask for an assignment, unless one has come; what has begun is to be ended."""
        coordinator.request_rejoin()
        if not come:
            come.append(await join())
        return come[0]

    async def complete_once(*arguments: Any) -> None:
        """Take it."""
        come.clear()
        shared()
        await complete(*arguments)

    coordinator._do_join_and_sync_async, coordinator._on_join_complete_async = join_once, complete_once


def read_on_in_rebalances(consumer: KafkaConsumer) -> None:
    """Have what a member keeps in a cooperative rebalance read while it waits for the others (KIP-429).

    Left alone, every member stands still until the slowest has finished its batch and joined again.
    """
    coordinator = consumer._coordinator
    take_part = coordinator.poll

    def poll(timeout_ms: float | None = None) -> bool:
        """Join again if need be, and wait for the others only where there is nothing else to do."""
        reads = bool(consumer.assignment())
        return take_part(JOIN_MS if reads and coordinator.need_rejoin() else timeout_ms) or reads

    coordinator.poll = poll

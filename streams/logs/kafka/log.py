"""Kafka as the log: one member of a consumer group, whatever client library speaks for it.

Commits trail what took effect by a durability lag, so that a store that forgets its last second is
refolded, not skipped. A rebalance flushes nothing: what was fetched of a revoked partition and not yet handed
out is dropped, and whoever reads the partition next begins at the last commit.

Two input topics, observations and labels, are read side by side partition by partition. When a label is read,
the end of its observations' partition is asked for, and the label waits until that end has been handed out:
so no label overtakes an observation that was in the log before it.
"""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from math import inf
from typing import Literal

from streams.errors import InputError, Unavailable
from streams.events.record import Offsets, Place, Polled, Record
from streams.logs.kafka.group import GroupClient, OffsetOutOfRange, origin
from streams.logs.kafka.shelf import HeldLabels, Shelf

COMMIT_EVERY_S = 1.0

ASK_EVERY_S = 60.0
"""How long a topic that was made anew or given partitions may go unnoticed by a member that keeps its own."""

HELD_LABELS = 10_000
"""With so many of a partition waiting for observations, no more are read."""


class KafkaLog:
    """Topics of Kafka as an `EventLog`.

    Args:
        client: the member of the group.
        topics: names, as messages show them: one, or observations and labels.
        durability_lag_s: how long ago something must have taken effect before it is committed.
        expired: what to do where the log no longer holds the next record. "fail", or "skip" to the first one
            it holds, with a warning.
        clock: monotonic seconds.

    Raises:
        InputError: two topics whose partitions do not pair, or (from `poll`) a pair that is split among the
            members, or an expired offset.

    """

    def __init__(
        self,
        client: GroupClient,
        topics: Sequence[str],
        durability_lag_s: float = 2.0,
        expired: Literal["fail", "skip"] = "fail",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.skipped: dict[Place, int] = {}
        """How many events of each place were passed over, since the log no longer held them."""
        self._client = client
        self._topics = tuple(topics)
        self._lag_s = durability_lag_s
        self._expired = expired
        self._clock = clock
        self._assigned: frozenset[Place] = frozenset()
        self._incarnations: tuple[int, ...] = ()
        self._partitions = 0
        self._asked_s = -inf  # what the broker says of the topics; -inf: to be asked at once
        self._shelves: dict[int, Shelf] = {}
        self._paused: set[Place] = set()
        self._folded: deque[tuple[float, Offsets]] = deque()
        self._due: dict[Place, int] = {}
        self._safe: dict[Place, int] = {}  # where to go back to: committed, or the first that was handed out
        self._committed_s = clock()

    def poll(self, max_events: int, timeout_s: float = 0.0) -> list[Polled]:
        """At most that many next records in all, one `Polled` a partition."""
        self._commit_due()
        room = max_events - sum(len(shelf.arrived) for shelf in self._shelves.values())
        if room > 0:
            self._fetch(room, timeout_s)
        self._ask()
        polled = list(self._handed_out(max_events))
        self._pause_full()
        return polled

    def wait(self, timeout_s: float) -> None:
        """Stay a member of the group without reading on; nothing is lost by it.

        Nor is anything committed: the store may be away, and come back without its last second.
        """
        self._client.pause(self._assigned)
        try:
            self._fetch(1, timeout_s)
        finally:
            self._client.resume(self._assigned - self._paused)

    def commit(self, offsets: Offsets) -> None:
        """Everything below these offsets has taken effect; the group hears of it a durability lag later."""
        self._folded.append((self._clock(), offsets))
        self._commit_due()

    def rewind(self) -> None:
        """Hand out again whatever was not committed: the store may have forgotten what took effect since."""
        self._folded.clear()
        self._due.clear()
        self._shelves.clear()
        for place, offset in self._safe.items():
            if place in self._assigned:
                self._client.seek(place, offset)

    def lag(self) -> dict[Place, int]:
        """How many records of each place were not handed out yet, where that is known."""
        lags = {}
        for place in self._assigned:
            end, reached = self._client.highwater(place), self._reached(place)
            if end is not None and reached is not None:
                lags[place] = max(0, end - reached)
        return lags

    def assigned(self) -> set[int]:
        """The partitions of this member."""
        return {partition for _, partition in self._assigned}

    def origin(self, record: Record) -> str:
        """Topic, partition, offset and incarnation of a record."""
        return origin(self._topics[record.topic], record, self._incarnations[record.topic])

    def close(self) -> None:
        """Leave the group; commits only what took effect long enough ago."""
        try:
            self._commit_due(at_once=True)
        finally:
            self._client.close()

    def _fetch(self, max_records: int, timeout_s: float) -> None:
        """Put the next records on their shelves."""
        try:
            fetched = self._client.fetch(max_records, timeout_s)
        except OffsetOutOfRange as error:
            self._skip(error.place, error.offset, error.cut)
            return
        self._follow(fetched.revoked)
        if fetched.shared:
            self._asked_s = -inf
        again = {
            p: at for p, at in fetched.refused.items() if p in self._assigned and self._safe.get(p) == at
        }
        self._due = {**again, **self._due}
        for (topic, partition), records in fetched.records.items():
            self._shelves.setdefault(partition, Shelf()).add(topic, records)

    def _follow(self, revoked: Collection[Place]) -> None:
        """Notice another assignment; forget what belongs to the reader after us."""
        assigned = self._client.assigned()
        gone = (self._assigned - assigned).union(revoked)
        if gone:
            self._folded = deque((at, _without(offsets, gone)) for at, offsets in self._folded)
            self._due = dict(_without(self._due, gone))
        for place in gone:
            self._shelves.pop(place[1], None)
            self._safe.pop(place, None)
        if gone or assigned != self._assigned:
            self._asked_s = -inf
        self._assigned = assigned

    def _ask(self) -> None:
        """What only the broker knows. Records lie on their shelves by now: where it is away, they stay there."""
        if self._clock() - self._asked_s >= ASK_EVERY_S:
            topics = self._client.topics()
            if len(topics) == 2:
                self._check_pairs(*(topic.partitions for topic in topics))
            self._partitions = topics[0].partitions
            self._incarnations = tuple(topic.incarnation for topic in topics)
            self._asked_s = self._clock()
        held = {p: [h for h in shelf.held if h.end is None] for p, shelf in self._shelves.items()}
        unknown = [(0, partition) for partition, labels in held.items() if labels]
        ends = self._client.end(unknown) if unknown else {}
        for (_, partition), end in ends.items():
            for labels in held[partition]:
                labels.end = end

    def _check_pairs(self, first: int, second: int) -> None:
        observations, labels = (sorted(p for t, p in self._assigned if t == topic) for topic in (0, 1))
        names = " and ".join(self._topics)
        if first != second:
            raise InputError(
                f"{names} have {first} and {second} partitions: observations and labels of a task then lie in "
                "different ones. Give both topics the same number: `reptide topics create`"
            )
        if observations != labels:
            raise InputError(
                f"{names}: this worker was given partitions {observations} of the first and {labels} of the second. "
                "Every member of the group must use the range assignor and read both topics"
            )

    def _handed_out(self, room: int) -> Iterator[Polled]:
        for partition, shelf in self._shelves.items():
            position = self._reached((0, partition)) if shelf.position is None else shelf.position
            records = _taken(shelf.arrived, room)
            if records:
                shelf.position = records[-1].offset + 1
            while shelf.held and len(records) < room and self._passed(partition, shelf.held[0]):
                records += _taken(shelf.held[0].labels, room - len(records))
                if not shelf.held[0].labels:
                    shelf.held.popleft()
            room -= len(records)
            for record in records:
                self._safe.setdefault((record.topic, partition), record.offset)
            if records:
                yield Polled(partition, self._incarnations, position or 0, records, self._partitions)

    def _passed(self, partition: int, held: HeldLabels) -> bool:
        """Whether all observations before the labels were handed out."""
        reached = self._reached((0, partition))
        return reached is not None and held.end is not None and reached >= held.end

    def _reached(self, place: Place) -> int | None:
        """The next offset to hand out."""
        first = self._shelves[place[1]].first(place[0]) if place[1] in self._shelves else None
        return self._client.position(place) if first is None else first.offset

    def _pause_full(self) -> None:
        """Read no labels on where many wait."""
        full = {
            (1, partition)
            for partition, shelf in self._shelves.items()
            if sum(len(held.labels) for held in shelf.held) >= HELD_LABELS
        }
        if full != self._paused:
            self._client.pause(full)
            self._client.resume(self._paused - full)
            self._paused = full

    def _commit_due(self, *, at_once: bool = False) -> None:
        """Commit what took effect long enough ago. Where the broker is away it is tried again later."""
        now = self._clock()
        while self._folded and self._folded[0][0] <= now - self._lag_s:
            self._due.update(self._folded.popleft()[1])
        if self._due and (at_once or now - self._committed_s >= COMMIT_EVERY_S):
            self._committed_s = now
            try:
                self._client.commit(self._due)
            except Unavailable:
                return
            except InputError:
                self._due.clear()  # for good: it is not asked again by whoever leaves
                raise
            self._safe.update(self._due)
            self._due.clear()

    def _skip(self, place: Place, offset: int, cut: bool) -> None:
        """Go to the first record there is, or say why not."""
        start, name = self._client.start(place), f"topic {self._topics[place[0]]} partition {place[1]}"
        if cut or offset > start:
            raise InputError(
                f"{name}: offset {offset} is to be read next, and the log, which starts at {start}, no longer holds "
                "what was before it. The topic was created anew or cut: `reptide rebuild --inexact` begins again "
                "with what it holds"
            )
        lost = f"{name}: offset {offset} is to be read next, the log now starts at {start}: {start - offset} are lost"
        if self._expired == "fail":
            raise InputError(
                f'{lost}. To go on without them set kafka.expired = "skip": all that was learned stays. A longer '
                "retention.ms keeps it from happening again"
            )
        warnings.warn(lost, RuntimeWarning, stacklevel=2)
        self.skipped[place] = self.skipped.get(place, 0) + start - offset
        self._client.seek(place, start)
        if place[0] == 0 and place[1] in self._shelves:
            self._shelves[place[1]].position = None


def _taken(records: deque[Record], at_most: int) -> list[Record]:
    return [records.popleft() for _ in range(min(at_most, len(records)))]


def _without(offsets: Offsets, gone: Collection[Place]) -> Offsets:
    return {place: offset for place, offset in offsets.items() if place not in gone}

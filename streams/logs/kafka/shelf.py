"""What was fetched of one partition and not yet handed out: labels wait here for the observations before them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from streams.events.record import Record


@dataclass
class HeldLabels:
    """Labels, read together, that wait for the observations before them."""

    labels: deque[Record]
    end: int | None = None
    """Observations below this were in the log when the labels were read; None until the broker was asked."""


@dataclass
class Shelf:
    """What was fetched of one partition and not yet handed out."""

    arrived: deque[Record] = field(default_factory=deque)
    """Of the first topic."""
    held: deque[HeldLabels] = field(default_factory=deque)
    """Of the second."""
    position: int | None = None
    """The first topic's next offset to hand out, once something was."""

    def add(self, topic: int, records: Sequence[Record]) -> None:
        """Keep records that were fetched."""
        if topic == 0:
            self.arrived.extend(records)
        else:
            self.held.append(HeldLabels(deque(records)))

    def first(self, topic: int) -> Record | None:
        """The next record of a topic."""
        records = self.arrived if topic == 0 else self.held[0].labels if self.held else ()
        return records[0] if records else None

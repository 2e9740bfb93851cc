"""Room for so many tasks: where a cell of the schedule begins, the coldest are forgotten, before the next event.

So which tasks are forgotten, and when, is a function of the log and the settings, however the log is cut into batches
and whenever the program is stopped; and a rebuild forgets them again. The store keeps where that was done last, in
the same transaction: events before it are not folded again, even where the position lags behind, as in a snapshot
that was taken under load. What comes of such a task later is that of one never seen. Nothing of it is kept: its
labels are orphans, as those of any task without a pending observation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine.stream.layout import Layout
from streams.events.wording import unheard
from streams.program.schedule import Schedule
from streams.stores.lmdb import LmdbStore


@dataclass(frozen=True)
class Room:
    """Keeps the rows of a store to so many tasks; 0: all."""

    store: LmdbStore
    layout: Layout
    schedule: Schedule
    most: int
    say: Callable[[str], object] = unheard

    def make(self, position: int) -> None:
        """Forget the coldest tasks, where a cell begins at a position up to which all is committed."""
        if not self.most or position == 0 or self.schedule.cell(position) != position:
            return
        gone = self.store.forget_coldest(self.layout, self.most, position)
        if gone:
            self.say(
                f"the {gone:,} tasks seen least, and longest ago, are forgotten: there were more than {self.most:,} "
                "(run.most_tasks)"
            )

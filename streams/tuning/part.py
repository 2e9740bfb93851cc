"""The first part of a stream, which alone decides: where it ends, in events and in words."""

from __future__ import annotations

from dataclasses import dataclass

from streams.assembly import embedded, learners
from streams.errors import SettingsError
from streams.events.times import epoch_seconds
from streams.events.wording import utc
from streams.program.schedule import Schedule
from streams.settings.tree import Settings, required


@dataclass(frozen=True)
class Part:
    """The first `events` of the `end` events of a log."""

    events: int
    end: int
    last: str
    """Where its last event lies, and when it takes place."""
    digest: str
    """Which log it is."""

    @property
    def judged_from(self) -> int:
        """Offset from which on labels are judged: the second half."""
        return self.events // 2

    @property
    def described(self) -> str:
        """What was looked at."""
        return f"the first {self.events:,} of {self.end:,} events, to {self.last}; nothing after it was looked at"


def first_part(settings: Settings, share: float) -> Part:
    """The first share of a stream's events.

    Raises:
        SettingsError: too few to say anything.

    """
    table = required(settings.input, "input")
    log = embedded.input_log(settings, learners.problem_of(settings), None)
    events, first = int(log.end() * share), Schedule(settings.outer.every).next(0)
    if not 0 < share <= 1 or events // 2 <= first:
        raise SettingsError(
            f"--share {share:g}: the first {events:,} of the {log.end():,} events of {table.path} are too few, since "
            f"the first shared model is trained after {first} and the second half is judged; a larger --share"
        )
    log.seek(events - 1)
    (polled,) = log.poll(1)
    (record,) = polled.records
    time_s = epoch_seconds(record.time)
    when = f" ({utc(time_s)})" if time_s == time_s else ""
    return Part(events, log.end(), f"{log.origin(record)}{when}", log.content.digest)

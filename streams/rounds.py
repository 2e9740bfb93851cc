"""The outer loop of one process: rounds that fall due at positions of the input log.

What a round trains on is decided by offsets alone, so the versions of theta are a function of the log, and a
process that died goes on bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass

from streams.logs.output import OutputLog
from streams.outputs import FoundEpisode, read_episode
from streams.trainer import Advance, Trainer

LINES_AT_ONCE = 1024


@dataclass(frozen=True)
class Rounds:
    """Runs a round of the outer loop whenever it is due, on the episodes that came since the last."""

    trainer: Trainer
    episodes: OutputLog

    def run(self, through: int) -> Advance | None:
        """Train on every episode that ended below offset `through`, and publish; None if that was done."""
        before = self.trainer.newest()
        consumed = before.numbers if before else {"position": 0, "through": 0}
        if consumed["through"] >= through:
            return None
        found, position = self.episodes_from(consumed["position"], consumed["through"], through)
        if not found:
            return None
        return self.trainer.advance(before, found, {"position": position, "through": through})

    def episodes_from(
        self, position: int, since: int, below: int | None = None
    ) -> tuple[list[FoundEpisode], int]:
        """Episodes from a position on that ended in a range of offsets, each once; and the position after.

        A worker that died, or runs ahead, may have left episodes from beyond a round that is due: they are
        not consumed. All that ended below an offset were appended before the first that did not.
        """
        found: dict[tuple[str, int], FoundEpisode] = {}
        while True:
            lines, after = self.episodes.read(position, LINES_AT_ONCE)
            if not lines:
                return list(found.values()), position
            for number, one in enumerate(map(read_episode, lines)):
                if below is not None and one.offset >= below:
                    return list(found.values()), self.episodes.read(position, number)[1]
                if one.offset >= since:
                    found.setdefault((one.task, one.episode.labels), one)
            position = after

"""The labels that the output `episodes` of one process says; those that it wrote itself are not parsed again.

One thread may append while another reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock

from streams.events.label_lines import LabelColumns, LabelLines
from streams.events.learned_labels import LabelReader, LearnedLabel
from streams.logs.output import OutputLog

LINES_AT_ONCE = 1024

MOST_KEPT = 65_536
"""Labels that are kept until they are read, but for those that were appended last."""


@dataclass
class LabelLog:
    """Appends to the output, and reads labels from it."""

    lines: OutputLog
    reader: LabelReader
    _kept: dict[int, tuple[LabelColumns, int]] = field(default_factory=dict)
    """Labels of lines that begin at a position, and the position after them; in the order of positions."""
    _count: int = 0
    """How many labels are kept."""
    _turn: Lock = field(default_factory=Lock)

    def append(self, lines: Sequence[bytes], keys: Sequence[bytes] = ()) -> None:
        """Add lines, as `OutputWriter` has it."""
        with self._turn:
            position = self.lines.end()
            self.lines.append(lines, keys)
            if isinstance(lines, LabelLines):
                self._keep(position, lines.labels)

    def sync(self) -> None:
        """Keep what was appended over a crash of the machine."""
        self.lines.sync()

    def read(self, position: int) -> tuple[Sequence[LearnedLabel | str], int]:
        """The next labels from a position, and the position after them; why there is none, of a line that is none."""
        with self._turn:
            while self._kept and (first := next(iter(self._kept))) < position:  # read from their lines
                self._taken(first)
            if position in self._kept:
                labels, after = self._taken(position)
                return self.reader.sound(labels), after
            lines, after = self.lines.read(position, LINES_AT_ONCE)  # before what is appended next is kept
        return self.reader.read(lines), after

    def passed(self, position: int, count: int) -> int:
        """The position after so many labels from a position on."""
        return self.lines.read(position, count)[1]

    def _keep(self, position: int, labels: LabelColumns) -> None:
        """Keep labels until they are read; of those that nobody reads the oldest go."""
        self._kept[position] = (labels, self.lines.end())
        self._count += len(labels)
        while len(self._kept) > 1 and self._count > MOST_KEPT:
            self._taken(next(iter(self._kept)))

    def _taken(self, position: int) -> tuple[LabelColumns, int]:
        labels, after = self._kept.pop(position)
        self._count -= len(labels)
        return labels, after

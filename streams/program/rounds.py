"""The outer loop of one process: what a round trains on; when one is due, `schedule` says.

What a round trains on is decided by offsets alone, so the versions of theta are a function of the log, and a
process that died goes on bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from streams.events.learned_labels import LearnedLabel
from streams.events.record import UNTOLD, incarnation_text, told_incarnation
from streams.events.wording import unheard
from streams.program.label_log import LabelLog
from streams.program.label_window import LabelWindow
from streams.program.trainer import Advance, Trainer

_Read = tuple[int, LearnedLabel]
"""A position at or before which a line begins, and its label."""


@dataclass(frozen=True)
class _Window:
    """The last labels before a position in the output."""

    position: int = 0
    begins: Sequence[int] = ()
    """At or before which the line of each begins."""
    labels: LabelWindow = field(default_factory=LabelWindow)

    def with_later(self, found: list[_Read], all_of_them: LabelWindow, position: int, size: int) -> _Window:
        """Take labels in, and let the oldest go; and all episodes, each of which is trained on once."""
        begins = [*self.begins, *(begin for begin, _ in found)]
        return _Window(position, begins[-size:], all_of_them.last(size, len(found)))

    @property
    def numbers(self) -> list[int]:
        """Where to read it again from: a position in the output, and the first label's offset."""
        return [self.begins[0], self.labels.labels[0].source.offset] if self.begins else [self.position, 0]


class _Ahead(NamedTuple):
    """What was read already of what the next round trains on."""

    begin: tuple[int, int]
    """The position and the offset from which on it was read."""
    found: list[_Read]
    position: int
    """Where the next line begins."""


@dataclass
class Rounds:
    """Runs a round of the outer loop, when it is told to, on the labels that came since the last."""

    trainer: Trainer
    episodes: LabelLog
    incarnation: int
    """Of the input log: what was said of another one is none of its labels."""
    say: Callable[[str], object] = unheard
    """Tells an operator, in a sentence."""
    _window: _Window = field(default_factory=_Window)
    _ahead: _Ahead | None = None

    def run(self, through: int) -> Advance | None:
        """Train on every label that came below offset `through`, and publish; None if that was done."""
        before = self.trainer.newest()
        consumed = self._consumed(before.numbers if before else {})
        if consumed["through"] >= through:
            return None
        earlier = self._window = self._earlier(consumed["window"], consumed["position"], consumed["through"])
        found, position = self._found(consumed["position"], consumed["through"], through)
        if not found:
            return None
        window = earlier.labels.after([label for _, label in found])
        self._window = earlier.with_later(found, window, position, self.trainer.window)
        reached = {
            "incarnation": incarnation_text(self.incarnation),
            "position": position,
            "through": through,
            "window": self._window.numbers,
        }
        advance = self.trainer.advance(before, window, len(found), reached)
        self._ahead = _Ahead((position, through), [], position)
        return advance

    def read_on(self, below: int) -> None:
        """Read labels below an offset that came since the last round of this process, so that less is left for it."""
        if self._ahead is not None:
            self._found(*self._ahead.begin, below)

    def _found(self, position: int, since: int, below: int) -> tuple[list[_Read], int]:
        """What `_read` returns; what was read ahead is not read again."""
        begin, found = (position, since), list[_Read]()
        if self._ahead is not None and self._ahead.begin == begin:
            found, position = self._ahead.found, self._ahead.position
            since = found[-1][1].source.offset + 1 if found else since
        more, position = self._read(position, since, below)
        found += more
        self._ahead = _Ahead(begin, found, position)
        return found, position

    def position(self) -> int:
        """Where in the episodes the newest theta was trained up to."""
        before = self.trainer.newest()
        return int(self._consumed(before.numbers if before else {})["position"])

    def labels(self) -> list[LearnedLabel]:
        """Every label that there is."""
        return [label for _, label in self._read(0, 0, None)[0]]

    def _consumed(self, numbers: Mapping[str, Any]) -> Mapping[str, Any]:
        """How far a checkpoint goes in this log: nowhere, where it was made from another one."""
        ours = told_incarnation(numbers) in (self.incarnation, UNTOLD) and "through" in numbers
        return numbers if ours else {"position": 0, "through": 0, "window": [0, 0]}

    def _earlier(self, window: Sequence[int], position: int, through: int) -> _Window:
        """The window before a position; read again where this process has another, since it was started anew."""
        if self._window.position == position:
            return self._window
        start, since = window
        again = self._read(start, since, through)[0]
        labels = LabelWindow.of([label for _, label in again])
        return _Window().with_later(again, labels, position, self.trainer.window)

    def _read(self, position: int, since: int, below: int | None) -> tuple[list[_Read], int]:
        """Labels from a position on, of a range of offsets, each once; and the position after.

        Offsets only rise, but for what a worker that died had said before. One that runs ahead may have left labels
        from beyond a round that is due: they are not consumed. All below an offset come before the first that is not.
        """
        found: list[_Read] = []
        while True:
            labels, after = self.episodes.read(position)
            if not labels:
                return found, position
            for number, one in enumerate(labels):
                if isinstance(one, str):
                    self.say(f"a label in the output `episodes` {one}; passed over")
                    continue
                incarnation, _, offset = one.source
                if incarnation not in (self.incarnation, UNTOLD):
                    continue
                if below is not None and offset >= below:
                    return found, self.episodes.passed(position, number)
                if offset >= since:
                    found.append((position, one))
                    since = offset + 1
            position = after

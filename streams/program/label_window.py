"""Labels to be trained on, and their numbers as arrays, to which those of each round are added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine.types import Float32, Int64
from streams.events.learned_labels import LearnedLabel


class _Rows:
    """What is trained on of labels, each of which has a place of its own; read from a label when first asked for."""

    def __init__(self, width: int, places: int) -> None:
        self.x, self.y = np.empty((places, width), np.float32), np.empty(places, np.float32)
        self.is_read, self.labels = np.zeros(places, np.bool_), list[LearnedLabel | None]()

    def add(self, labels: Sequence[LearnedLabel]) -> Int64:
        """Give labels places; there is room for them."""
        before = len(self.labels)
        self.labels += labels
        return np.arange(before, len(self.labels))

    def at(self, places: Int64) -> tuple[Float32, Float32]:
        """Features [N, W] and values [N]."""
        if not (known := self.is_read[places]).all():
            self._read(places[~known])
        return self.x[places], self.y[places]

    def _read(self, places: Int64) -> None:
        labels: list[Any] = [self.labels[place] for place in places.tolist()]
        joined = bytearray().join([one.x for one in labels])  # as buffers: np.concatenate takes twice as long
        self.x[places] = np.frombuffer(joined, np.float32).reshape(len(labels), -1)
        self.y[places] = [one.y for one in labels]
        self.is_read[places] = True
        for place in places.tolist():
            self.labels[place] = None  # with its episode, which is large


@dataclass(frozen=True, eq=False)
class LabelWindow:
    """The last labels, oldest first. It does not change; numbers are kept once for all windows that come of it."""

    labels: Sequence[LearnedLabel] = ()
    _places: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))
    _rows: _Rows = field(default_factory=lambda: _Rows(0, 0))

    @staticmethod
    def of(labels: Sequence[LearnedLabel]) -> LabelWindow:
        """A window of these."""
        return LabelWindow().after(labels)

    def __len__(self) -> int:
        return len(self.labels)

    def after(self, labels: Sequence[LearnedLabel]) -> LabelWindow:
        """With labels that came next."""
        if not labels:
            return self
        rows, places = self._rows, self._places
        if len(rows.labels) + len(labels) > len(rows.y):
            rows, places = self._moved(len(labels), len(labels[0].x))
        return LabelWindow([*self.labels, *labels], np.concatenate([places, rows.add(labels)]), rows)

    def last(self, size: int, new: int) -> LabelWindow:
        """The last so many, of which the newest are kept without episodes: these are trained on once."""
        kept = [*self.labels[-size:]]
        for n in range(max(0, len(kept) - new), len(kept)):
            kept[n] = kept[n] if kept[n].episode is None else kept[n]._replace(episode=None)
        return LabelWindow(kept, self._places[-size:], self._rows)

    def numbers(self, index: Int64) -> tuple[Float32, Float32]:
        """Features [N, W] and values [N] of some labels."""
        return self._rows.at(self._places[index])

    def _moved(self, more: int, width: int) -> tuple[_Rows, Int64]:
        """The rows of these labels alone, with room for more than will be added now, so that few are moved often."""
        rows, count = _Rows(width, (len(self) + more) * 3 // 2), len(self)
        rows.labels += [self._rows.labels[place] for place in self._places.tolist()]
        if count:
            for part in ("x", "y", "is_read"):
                getattr(rows, part)[:count] = getattr(self._rows, part)[self._places]
        return rows, np.arange(count)

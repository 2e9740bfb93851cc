"""Records column by column: what decoding looks at together.

A log whose records lie in columns hands out `LazyRecords`, which make a `Record` where somebody asks for one; those
of any other log are put into columns here.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Self, overload

import numpy as np

from engine.features.columns import Encoded, exact_numbers
from engine.features.encoder import Features
from engine.types import Bool, Float64, Int64, UInt8
from streams.events.identity import identities_of
from streams.events.numbers import numbers_of
from streams.events.reading import LABEL, MAX_RECORD_BYTES
from streams.events.record import PlacedRecords, Record
from streams.events.times import FIRST_S, LAST_S, epoch_seconds

OR_TEXT = {str, type(None)}


class RecordColumns(NamedTuple):
    """What N records hold. Where a column does not tell (None, an empty text, NaN), only the record itself does."""

    whole: Bool
    """[N] whether columns tell anything; a record that could not be parsed tells it itself."""
    kind: UInt8
    topic: Int64
    partition: Int64
    offset: Int64
    task: Sequence[str | None]
    """[N] as text."""
    id: Sequence[str | None]
    """[N] as text."""
    time_s: Float64
    latest_s: Float64
    """[N]; NaN where the log does not say."""
    label: Sequence[Any]
    """[L] as they came, of the labels among the records."""
    carries: Bool
    """[N] whether there are features."""
    encoded: Encoded
    """Those, of the F records that carry any."""


class LazyRecords(PlacedRecords):
    """Records that are made where somebody asks for one."""

    @abstractmethod
    def columns(self, features: Features) -> RecordColumns:
        """What they hold, features encoded."""

    @abstractmethod
    def values(self, name: str) -> Sequence[Any]:
        """[N] one field of each as it came; None where there is none."""

    @abstractmethod
    def ids(self) -> Sequence[Any]:
        """[N] the id of each as it came."""

    @abstractmethod
    def take(self, index: Int64) -> Self:
        """Some of them."""

    @abstractmethod
    def __iter__(self) -> Iterator[Record]:
        """All of them, made at once."""

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> Self: ...

    def __getitem__(self, index: int | slice) -> Record | Self:
        """One of them, or a stretch that is as lazy."""
        places = np.arange(len(self))[index]
        return self.take(places) if isinstance(index, slice) else next(iter(self.take(places[None])))


def columns_of(records: Sequence[Record], features: Features) -> RecordColumns:
    """Records [N] by column."""
    if isinstance(records, LazyRecords):
        return records.columns(features)
    fields = Record._fields
    by_name = dict(zip(fields, zip(*records, strict=True) if records else [()] * len(fields), strict=True))
    kind = np.array(by_name["kind"], np.uint8)
    is_label = kind == LABEL
    sound = [
        fault is None and (raw is None or len(raw) <= MAX_RECORD_BYTES)
        for fault, raw in zip(by_name["fault"], by_name["raw"], strict=True)
    ]
    carries = np.array([type(values) is dict for values in by_name["fields"]], np.bool_)
    none = np.array([values is None for values in by_name["fields"]], np.bool_)
    whole = np.array(sound, np.bool_) & (carries | none & is_label)
    carries &= whole
    return RecordColumns(
        whole,
        kind,
        np.array(by_name["topic"], np.int64),
        np.array(by_name["partition"], np.int64),
        np.array(by_name["offset"], np.int64),
        identities_of(by_name["task"]),
        identities_of(by_name["id"]),
        seconds_of(by_name["time"]),
        np.array(by_name["latest_s"], np.float64),
        [by_name["label"][n] for n in is_label.nonzero()[0].tolist()],
        carries,
        features.encode([by_name["fields"][n] for n in carries.nonzero()[0].tolist()]),
    )


def seconds_of(times: Sequence[Any]) -> Float64:
    """Event times [N] as seconds since the epoch, each as `epoch_seconds` reads it."""
    are_texts = OR_TEXT.issuperset(map(type, times))
    seconds = numbers_of([time or "" for time in times]) if are_texts else exact_numbers(times)
    if seconds is None:
        return np.array([epoch_seconds(time) for time in times], np.float64)
    within = (seconds >= FIRST_S) & (seconds <= LAST_S)
    return seconds if np.count_nonzero(within) == len(within) else np.where(within, seconds, np.nan)


def taken(records: Sequence[Record], index: Int64) -> Sequence[Record]:
    """Some of the records."""
    if len(index) == len(records):
        return records
    return records.take(index) if isinstance(records, LazyRecords) else [records[n] for n in index.tolist()]


def ids_of(records: Sequence[Record]) -> Sequence[Any]:
    """[N] the id of each as it came."""
    return records.ids() if isinstance(records, LazyRecords) else [record.id for record in records]


def values_of(records: Sequence[Record], name: str) -> Sequence[Any]:
    """[N] one field of each as it came; None where there is none."""
    if isinstance(records, LazyRecords):
        return records.values(name)
    return [None if record.fields is None else record.fields.get(name) for record in records]

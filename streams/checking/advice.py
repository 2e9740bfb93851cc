"""What was seen in a table, and in plain words what to do about it before streaming."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.features.columns import MAX_BUCKETS
from engine.stream.spec import StreamSpec
from engine.targets import Classification, Regression
from engine.types import Float64
from streams.checking.coarse import coarse
from streams.checking.columns import FEWEST, FeatureFacts, facts_of
from streams.checking.labels import FEW, Labels, Lost, labels_of, lost, patient, roomy
from streams.checking.sample import MOST_ROWS, OUT_OF_RANGE, Sample, read_sample
from streams.events.reasons import WAYS_OUT
from streams.logs.base import ReplayLog
from streams.pages.kit.phrases import percent, plural
from streams.program.schedule import Schedule

CROWDED = 0.2
"""Share of a category's values that share a bucket, from which on more buckets are advised."""


ROOM = 10
"""Buckets a value, of which one value in ten shares its own."""


SELDOM = 0.2
"""Share of observations that a task of its own can help, below which coarser tasks are advised."""


@dataclass(frozen=True)
class Findings:
    """Everything that is said of a table."""

    target: Classification | Regression
    sample: Sample
    labels: Labels
    lost: Lost
    features: tuple[FeatureFacts, ...]
    warnings: tuple[str, ...]

    @property
    def scores_any(self) -> bool:
        """Whether a label will be scored; of a log that was looked at in part, one may come later."""
        return len(self.labels.event) > self.lost.late + self.lost.pushed_out or not self.sample.whole

    @property
    def y(self) -> Float64:
        """Every label that could be read, those outside of a regression's range included."""
        return np.concatenate([self.sample.y[self.sample.labels == 1], self.sample.outside])


def findings(
    log: ReplayLog,
    spec: StreamSpec,
    outer_every: int,
    *,
    has_labels: bool,
    remarks: Sequence[str] = (),
    most_rows: int = MOST_ROWS,
) -> Findings:
    """Look at a log from its start; `has_labels` tells whether the settings name a label column.

    `remarks` are what the log itself has to say of its table.
    """
    sample = read_sample(log, spec.problem, most_rows)
    labels = labels_of(sample)
    y = labels.of_observations(sample)
    features = tuple(facts_of(feature, y, spec.problem.target) for feature in sample.features)
    missed = lost(sample, labels, spec.memory)
    warnings = (
        *_of_refusals(sample, labels),
        *remarks,
        *_of_ids(sample, labels),
        *(_of_labels(sample, labels, spec.problem.target) if has_labels else (NO_LABEL_COLUMN,)),
        *_of_delay(sample, labels, missed, spec),
        *_of_tasks(sample, labels),
        *_of_rounds(sample, outer_every),
        *(warning for feature in features for warning in _of_feature(feature)),
        *coarse(sample.features, spec),
    )
    return Findings(spec.problem.target, sample, labels, missed, features, warnings)


NO_LABEL_COLUMN = "no label column is named, so nothing is ever learned: name it in input.label"


def _of_refusals(sample: Sample, labels: Labels) -> Iterator[str]:
    for reason, tally in sorted(sample.refused.items(), key=lambda pair: -pair[1].count):
        way_out = WAYS_OUT.get(reason, "")
        if reason == OUT_OF_RANGE:
            y = np.concatenate([sample.y[sample.labels == 1], sample.outside])
            way_out = f"set target.low to {y.min():g} or less, and target.high to {y.max():g} or more"
        yield (
            f"{plural(tally.count, 'event')} will be refused ({reason}), the first in {tally.origin}: "
            f"{tally.detail}; {way_out}"
        )
    if labels.of_refused:
        yield f"{plural(labels.of_refused, 'label')} will not be scored, since their observation is refused"


def _of_ids(sample: Sample, labels: Labels) -> Iterator[str]:
    if labels.repeated:
        observed = int((sample.labels == 0).sum())
        yield (
            f"{labels.repeated:,} of {plural(observed, 'observation')} have an id that their task had before, and "
            "are served once: let input.id name a column that differs in every row, or leave it out"
        )


def _of_labels(sample: Sample, labels: Labels, target: Classification | Regression) -> Iterator[str]:
    y = sample.y[sample.labels == 1]
    if labels.orphans:
        yield (
            f"{plural(labels.orphans, 'label')} of {len(y):,} come before their observation, or have none, and "
            "are never scored: look at input.time, input.label_time and input.id"
        )
    elif not len(y) and sum(tally.count for tally in sample.refused.values()) < sample.rows:
        yield "no row has a label, so nothing is learned: look at input.label"
    if sample.refused_labels:  # what is said of the labels that are left would be of no use
        return
    if isinstance(target, Classification):
        yield from _of_classes(y, target)
    elif len(y) > 1 and y.min() == y.max():
        yield f"every label is {y[0]:g}, so there is nothing to learn: look at input.label"


def _of_classes(y: Float64, target: Classification) -> Iterator[str]:
    counts = np.bincount(y.astype(np.int64), minlength=len(target.classes))
    names = [repr(name) for name in target.classes]
    if len(y) > 1 and (counts > 0).sum() == 1:
        yield f"every label is {names[int(counts.argmax())]}, so there is nothing to learn: look at input.label"
    elif len(y) >= FEWEST and (absent := [n for n, count in zip(names, counts, strict=False) if not count]):
        yield f"no label is {', '.join(absent)}: look at target.classes, where a misspelled class waits for ever"


def _of_delay(sample: Sample, labels: Labels, missed: Lost, spec: StreamSpec) -> Iterator[str]:
    memory, total = spec.memory, max(len(labels.event), 1)
    if missed.late >= FEW * total:
        longer = replace(memory, ttl_s=patient(memory, labels))
        room = roomy(sample, labels, longer)
        yield (
            f"{missed.late:,} of {plural(total, 'label')} ({percent(missed.late / total)}) come later than "
            f"memory.ttl_s = {memory.ttl_s:.10g}, when their observation is given up: set memory.ttl_s to "
            f"{longer.ttl_s:.10g}{f' and memory.pending to {room}' if room > memory.pending else ''}"
        )
    elif missed.pushed_out >= FEW * total:
        yield (
            f"{missed.pushed_out:,} of {plural(total, 'label')} ({percent(missed.pushed_out / total)}) come when "
            f"more than memory.pending = {memory.pending} observations of their task wait: set memory.pending to "
            f"{roomy(sample, labels, memory)}"
        )


def _of_tasks(sample: Sample, labels: Labels) -> Iterator[str]:
    if sample.tasks == 1:
        if len(sample.task) == 1 or sample.refused:
            return
        yield "all events are of one task, so there is nobody to share with: name a finer column in input.task"
    elif len(labels.event) and labels.helped < SELDOM:
        yield (
            f"only {percent(labels.helped)} of observations come when their task has a label already, and only those "
            "can be served better by a model of their own: name a coarser column in input.task"
        )


def _of_rounds(sample: Sample, outer_every: int) -> Iterator[str]:
    first = Schedule(outer_every).next(0)
    if 1 < sample.end <= first:
        yield (
            f"the log ends after {sample.end:,} events, before the first shared model is trained, after {first}: "
            "base rates are all that is served"
        )


def _of_feature(feature: FeatureFacts) -> Iterator[str]:
    field = f"field {feature.name!r}"
    if feature.is_constant:
        empty = feature.distinct == 0
        yield f"{field} {'is empty in every row' if empty else 'never changes'}: leave it out of [[features]]"
    if feature.alone is not None and feature.alone.leaks:
        yield (
            f"{field} tells the label almost perfectly by itself ({feature.alone.measure} "
            f"{feature.alone.value:.3f} on the later half, learned on the earlier): it looks like a copy of the "
            "label; leave it out of [[features]], unless it is truly known before the label is"
        )
    if feature.is_id:
        yield (
            f"{field} looks like an id: {feature.distinct:,} different values, nearly one an event, so what is "
            "learned of one helps no other; leave it out of [[features]]"
        )
    elif feature.sharing > CROWDED * feature.distinct:
        yield (
            f"{field} has {feature.distinct:,} values in {feature.buckets:,} buckets, and {feature.sharing:,} of "
            f"them share one with another and look the same: set buckets = {_enough(feature.distinct)}"
        )
    if feature.rises:
        yield (
            f"{field} rises with time, as a counter or a clock does, so every later event lies outside of what was "
            'learned; leave it out of [[features]], or give its cycle (hour, weekday) as encoder = "cyclic"'
        )


def _enough(values: int) -> int:
    """Buckets of which few values share one: a power of two."""
    return min(MAX_BUCKETS, 1 << (ROOM * values - 1).bit_length())

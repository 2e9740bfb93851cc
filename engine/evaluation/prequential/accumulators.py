"""What prequential evaluation counts while labels pass: sums of fixed size, of k predictors side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.evaluation import metrics
from engine.evaluation.prequential.report import Bucket, ClassScores, ReliabilityBin, Scores, SeenBin, number
from engine.targets import Classification
from engine.types import Bool, Float32, Float64, Int64

MOST_BUCKETS = 512
"""A stream that spans more buckets of time than this has their width doubled."""

THETA, SERVED = "theta", "served"
"""The two predictors that every evaluation has; lift is the first's loss minus the second's."""


@dataclass(frozen=True)
class ScoredLabels:
    """N labels with what k predictors had said, in the order in which the labels came."""

    y: Float32
    """[N] class index, or value."""
    prediction: Float32
    """[N, k, C] probabilities; [N, k, 1] for a regression."""
    loss: Float64
    """[N, k] log loss in nats; squared error for a regression."""
    seen: Int64
    """[N] how many labels the task had learned from when the prediction was made."""
    time_s: Float64
    """[N] event time of the label."""

    def __len__(self) -> int:
        return len(self.y)


class Ranked(NamedTuple):
    """Labels by score, [N, k] each: whether the scored class was true, and the bin of its probability.

    With two classes the scored class is class 1, which ranks the labels; with more it is the class predicted.
    """

    hit: Bool
    bin: Int64


class ClassTally:
    """Of a classification: confusion matrix, labels by score, and the hits of repeating the last label."""

    def __init__(self, predictors: int, target: Classification) -> None:
        self._target = target
        self._confusion = np.zeros((predictors, target.outputs, target.outputs), np.int64)
        self._scores = np.zeros((predictors, 2, metrics.FINE), np.int64)
        self._last = -1
        self._repeats = 0

    def add(self, labels: ScoredLabels) -> Ranked:
        """Count a batch."""
        y = labels.y.astype(np.int64)
        choice = labels.prediction.argmax(axis=-1)
        k = np.arange(choice.shape[1])
        np.add.at(self._confusion, (k, y[:, None], choice), 1)
        ranked = _ranked(labels.prediction, y, choice)
        np.add.at(self._scores, (k, ranked.hit.astype(np.int64), ranked.bin), 1)
        # The first label of the stream repeats nothing and counts as a miss.
        self._repeats += int((np.append(self._last, y[:-1]) == y).sum())
        self._last = int(y[-1])
        return ranked

    def class_labels(self) -> list[int]:
        """How many labels of each class."""
        return [int(n) for n in self._confusion[0].sum(axis=-1)]

    def scores(self, place: int, loss: float) -> Scores:
        """Of the predictor at `place`, whose mean loss is given."""
        confusion, (misses, hits) = self._confusion[place], self._scores[place]
        accuracy = metrics.ratio(np.trace(confusion), confusion.sum())
        no_change = float(metrics.ratio(self._repeats, confusion.sum()))
        calibration = metrics.reliability(misses, hits)
        binary = self._target.outputs == 2
        return Scores(
            loss=number(loss),
            log_loss=number(loss),
            auc=number(metrics.area_under_curve(misses, hits)) if binary else None,
            accuracy=number(accuracy),
            kappa_temporal=number(metrics.kappa_temporal(accuracy, no_change)),
            calibration_error=number(calibration.error()),
            reliability=_reliability_bins(calibration),
            per_class=self._per_class(confusion),
            rmse=None,
            mae=None,
        )

    def _per_class(self, confusion: Int64) -> list[ClassScores]:
        counts = confusion.sum(axis=-1)
        return [
            ClassScores(
                name=str(name), labels=int(labels), precision=number(p), recall=number(r), f1=number(f)
            )
            for name, labels, p, r, f in zip(
                self._target.classes, counts, *metrics.per_class(confusion), strict=True
            )
        ]


class ValueTally:
    """Of a regression: the sum of absolute errors."""

    def __init__(self, predictors: int) -> None:
        self._absolute = np.zeros(predictors)
        self._labels = 0

    def add(self, labels: ScoredLabels) -> None:
        """Count a batch."""
        errors = labels.prediction[:, :, 0].astype(np.float64) - labels.y[:, None]
        self._absolute += abs(errors).sum(axis=0)
        self._labels += len(labels)

    def class_labels(self) -> list[int]:
        """Return nothing: a regression has no classes."""
        return []

    def scores(self, place: int, loss: float) -> Scores:
        """Of the predictor at `place`, whose mean squared error is given."""
        return Scores(
            loss=number(loss),
            log_loss=None,
            auc=None,
            accuracy=None,
            kappa_temporal=None,
            calibration_error=None,
            reliability=[],
            per_class=[],
            rmse=number(np.sqrt(loss)),
            mae=number(metrics.ratio(self._absolute[place], self._labels)),
        )


class LearningCurve:
    """Losses by how many labels the task had learned from: 0, 1, 2, 3-4, 5-8, 9-16 and so on."""

    LAST = np.append(0, 2 ** np.arange(41))
    """The last number of labels of each bin."""

    def __init__(self, predictors: int) -> None:
        self._labels = np.zeros(len(self.LAST), np.int64)
        self._loss = np.zeros((len(self.LAST), predictors))

    def add(self, labels: ScoredLabels) -> None:
        """Count a batch."""
        place = np.minimum(np.searchsorted(self.LAST, labels.seen), len(self.LAST) - 1)
        np.add.at(self._labels, place, 1)
        np.add.at(self._loss, place, labels.loss)

    def total(self) -> int:
        """All labels."""
        return int(self._labels.sum())

    def mean_loss(self) -> Float64:
        """[k] over all labels; NaN before the first."""
        return metrics.ratio(self._loss.sum(axis=0), self.total())

    def bins(self, names: Sequence[str]) -> list[SeenBin]:
        """Those that have labels."""
        first = np.append(0, self.LAST[:-1] + 1)
        return [
            SeenBin(
                low=int(first[i]),
                high=int(self.LAST[i]),
                labels=int(self._labels[i]),
                loss=_named(names, self._loss[i] / self._labels[i]),
            )
            for i in np.flatnonzero(self._labels)
        ]


class _Sums(NamedTuple):
    """Of one bucket: [1] labels, [k] losses, [k, 2, bins] labels by score."""

    labels: Int64
    loss: Float64
    scores: npt.NDArray[np.uint32]


class Timeline:
    """Sums by bucket of event time; `score_bins` is 0 where ranking is not judged."""

    def __init__(self, predictors: int, bucket_s: float, score_bins: int) -> None:
        self.bucket_s = bucket_s
        self.first_s, self.last_s = np.inf, -np.inf
        self._predictors, self._score_bins = predictors, score_bins
        self._sums: dict[int, _Sums] = {}

    def add(self, labels: ScoredLabels, ranked: Ranked | None) -> None:
        """Count a batch of at least one label."""
        self.first_s = min(self.first_s, float(labels.time_s.min()))
        self.last_s = max(self.last_s, float(labels.time_s.max()))
        while len(self._sums.keys() | set(self._keys(labels.time_s).tolist())) > MOST_BUCKETS:
            self._double()
        keys = self._keys(labels.time_s)
        for key in np.unique(keys):
            self._add_to(int(key), keys == key, labels, ranked)

    def day_sums(self) -> metrics.DaySums:
        """All buckets in order of time, stacked."""
        ordered = [self._sums[key] for key in sorted(self._sums)] or [self._empty()]
        labels, loss, scores = (np.stack(part) for part in zip(*ordered, strict=True))
        return metrics.DaySums(labels[:, 0], loss, scores)

    def buckets(self, names: Sequence[str]) -> list[Bucket]:
        """In order of time."""
        return [self._bucket(key, names) for key in sorted(self._sums)]

    def _bucket(self, key: int, names: Sequence[str]) -> Bucket:
        sums = self._sums[key]
        loss = _named(names, sums.loss / sums.labels)
        start_s, lift = key * self.bucket_s, loss[THETA] - loss[SERVED]
        return Bucket(start_s=start_s, labels=int(sums.labels[0]), loss=loss, lift=lift)

    def _keys(self, time_s: Float64) -> Int64:
        return np.floor(time_s / self.bucket_s).astype(np.int64)

    def _add_to(self, key: int, chosen: Bool, labels: ScoredLabels, ranked: Ranked | None) -> None:
        sums = self._sums.setdefault(key, self._empty())
        np.add(sums.labels, chosen.sum(), out=sums.labels)
        np.add(sums.loss, labels.loss[chosen].sum(axis=0), out=sums.loss)
        if self._score_bins and ranked is not None:
            coarse = ranked.bin[chosen] // (metrics.FINE // self._score_bins)
            k = np.arange(self._predictors)
            np.add.at(sums.scores, (k, ranked.hit[chosen].astype(np.int64), coarse), 1)

    def _double(self) -> None:
        self.bucket_s *= 2
        halves, self._sums = self._sums, {}
        for key, sums in halves.items():
            into = self._sums.get(key // 2, self._empty())
            self._sums[key // 2] = _Sums(
                into.labels + sums.labels, into.loss + sums.loss, into.scores + sums.scores
            )

    def _empty(self) -> _Sums:
        k = self._predictors
        return _Sums(np.zeros(1, np.int64), np.zeros(k), np.zeros((k, 2, self._score_bins), np.uint32))


def _ranked(prediction: Float32, y: Int64, choice: npt.NDArray[Any]) -> Ranked:
    if prediction.shape[-1] == 2:
        hit = np.broadcast_to((y == 1)[:, None], choice.shape)
        return Ranked(hit, metrics.score_bin(prediction[:, :, 1]))
    return Ranked(choice == y[:, None], metrics.score_bin(prediction.max(axis=-1)))


def _named(names: Sequence[str], values: Float64) -> dict[str, float]:
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def _reliability_bins(calibration: metrics.Reliability) -> list[ReliabilityBin]:
    return [
        ReliabilityBin(labels=int(labels), predicted=float(predicted), observed=float(observed))
        for labels, predicted, observed in zip(*calibration, strict=True)
    ]

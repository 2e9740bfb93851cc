"""How stored rows enter a network: numbers standardised, ids embedded, counts of labels as rates.

The statistics are buffers, so they belong to the version of theta they were published with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from engine.features.columns import STANDARDISED_LIMIT, Category, Numeric, Text
from engine.features.history import MOST_CLASSES, HistoryColumns

if TYPE_CHECKING:
    from engine.features.encoder import Features

RATE_STRENGTH, VALUE_STRENGTH = 1.0, 0.1
"""How many labels the rate, or the mean, of all tasks counts for in a task's own."""


class FrontEnd(nn.Module):
    """Stored rows [..., W] to dense rows [..., D]: numbers first, then embeddings; wide sums, if any, behind them.

    The buffers are statistics that belong to theta's version: `mean` and `std` of the numbers that are standardised,
    and of the labels either `label_rate` [C], or `label_mean` and `label_std`. Counts of labels become what is known
    of the task's rate, drawn towards that of all tasks: log((n_k + s p_k) / (n + s)) - log p_k, which is 0 for a task
    without labels; for two classes the difference of both, log odds. Of a regression (sum - n mean) / (n + s) / std.
    """

    mean: Tensor
    std: Tensor
    label_rate: Tensor
    label_mean: Tensor
    label_std: Tensor

    def __init__(
        self,
        features: Features,
        classes: int | None = 2,
        history: HistoryColumns | None = None,
        wide: int = 0,
    ) -> None:
        """`classes` is C of the target, None for a regression; `wide` the outputs that a bucket has a weight for."""
        super().__init__()
        self.classes, self.history, self.outputs = classes, history, wide
        numeric: list[int] = []
        flagged: list[int] = []
        plain: list[int] = []
        self.categories: list[int] = []
        self.texts: list[slice] = []
        categories, texts = nn.ModuleList(), nn.ModuleList()
        sums: list[nn.Embedding] = []
        start = 0
        for column in features.columns:
            if isinstance(column, Numeric):
                flagged += [len(numeric)] if column.optional else []
                numeric.append(start)
            elif isinstance(column, Category | Text):
                # Beside weights of their own, buckets begin at zero: one never met then says nothing at all.
                values = torch.zeros(column.buckets, column.embedding)
                values = values if wide else nn.init.normal_(values, std=0.1)
                embedding = nn.Embedding(column.buckets, column.embedding, _weight=values)
                if isinstance(column, Category):
                    self.categories.append(start)
                    categories.append(embedding)
                else:
                    self.texts.append(slice(start, start + column.width))
                    texts.append(embedding)
                if wide:
                    sums.append(nn.Embedding(column.buckets, wide, _weight=torch.zeros(column.buckets, wide)))
            else:
                plain += range(start, start + column.width)
            start += column.width
        self.embeddings = nn.ModuleList([*categories, *texts])
        kinds = [
            isinstance(column, Text) for column in features.columns if isinstance(column, Category | Text)
        ]
        self.wide = nn.ModuleList([sums[i] for i in sorted(range(len(sums)), key=lambda i: kinds[i])])
        self.own_numbers = len(numeric)
        numeric = [*numeric, *(history.plain if history else ())]
        self.numeric, self.flagged, self.plain = numeric, flagged, plain
        columns = {"numeric": numeric, "flagged": flagged, "plain": plain}
        self._places = {name: torch.tensor(at, dtype=torch.int64) for name, at in columns.items()}
        self.all_numeric = numeric == list(range(start)) and not history
        self.all_plain = plain == list(range(start)) and not history
        self.register_buffer("mean", torch.zeros(len(numeric)))
        self.register_buffer("std", torch.ones(len(numeric)))
        self._register_labels(classes)
        self.numbers = len(numeric) + len(flagged) + len(plain) + (self._label_numbers if history else 0)
        embedded = sum(module.embedding_dim for module in self.embeddings if isinstance(module, nn.Embedding))
        self.width = self.numbers + embedded

    def _register_labels(self, classes: int | None) -> None:
        """What labels are standardised by, or the rates of classes."""
        if classes is None:
            self.register_buffer("label_mean", torch.zeros(()))
            self.register_buffer("label_std", torch.ones(()))
        else:
            self.register_buffer("label_rate", torch.full((classes,), 1 / classes))

    @property
    def _label_numbers(self) -> int:
        """How many numbers counts of labels, and the last of them, become."""
        sets = len(self.sets)
        if self.classes is None:
            return sets + 1
        return sets * (1 if self.classes == 2 else self.classes) + self.marks

    @property
    def marks(self) -> int:
        """Numbers that say what the last label was, one of few classes."""
        return self.classes if self.classes is not None and self.classes <= MOST_CLASSES else 0

    @property
    def sets(self) -> list[int]:
        """Where in a stored row each set of counts of labels begins."""
        return self.history.sets if self.history else []

    def forward(self, x: Tensor) -> Tensor:
        """Dense rows; a missing number sits at the mean, and its flag says so."""
        if self.all_plain and not self.outputs:
            return x
        numbers = x if self.all_numeric else self._of(x, "numeric")
        standard = ((numbers - self.mean) / self.std).clamp(-STANDARDISED_LIMIT, STANDARDISED_LIMIT)
        if self.all_numeric and not self.flagged and not self.outputs:
            return standard
        parts = [standard.nan_to_num(nan=0.0)]
        if self.flagged:
            parts.append(self._of(numbers, "flagged").isnan().to(x.dtype))
        if self.plain:
            parts.append(self._of(x, "plain"))
        if self.history is not None:
            parts += self._of_labels(x, self.history)
        at = [x[..., place].long() for place in self.categories]
        of = [x[..., span].long() for span in self.texts]
        known = len(at)
        parts += [embedding(ids) for embedding, ids in zip(self.embeddings, at, strict=False)]
        parts += [_averaged(self.embeddings[known + t], ids) for t, ids in enumerate(of)]
        if self.outputs:
            wide = x.new_zeros(*x.shape[:-1], self.outputs)
            for table, ids in zip(self.wide, at, strict=False):
                wide = wide + table(ids)
            for t, ids in enumerate(of):
                wide = wide + _averaged(self.wide[known + t], ids)
            parts.append(wide)
        return torch.cat(parts, dim=-1)

    def _of(self, x: Tensor, columns: str) -> Tensor:
        """Some columns of x [..., W]; a list in the place of an index would be made one in each call."""
        return x.index_select(-1, self._places[columns].to(x.device))

    def _of_labels(self, x: Tensor, history: HistoryColumns) -> list[Tensor]:
        """What the counts of labels say, and the last label."""
        width = history.label_width
        counts = torch.cat(
            [x[..., history.start : history.last], x[..., history.by_counts : history.stop]], -1
        )
        sets = counts.view(*counts.shape[:-1], counts.shape[-1] // width, width) if width else counts
        parts = [self._rates(sets).flatten(-2)] if width else []
        last = x[..., history.last]
        if self.classes is None:
            value = ((last - self.label_mean) / self.label_std).nan_to_num(nan=0.0)
            parts.append(value.unsqueeze(-1).clamp(-STANDARDISED_LIMIT, STANDARDISED_LIMIT))
        elif self.marks:
            parts.append((last.unsqueeze(-1) == torch.arange(1, self.marks + 1, device=x.device)).to(x.dtype))
        return parts

    def _rates(self, counts: Tensor) -> Tensor:
        """Sets of counts [..., K, L] as [..., K, 1], or [..., K, C] of more than two classes."""
        if self.classes is None:
            count, mean = counts[..., :1], counts[..., 1:]
            drawn = (mean - self.label_mean) * (count / (count + VALUE_STRENGTH)) / self.label_std
            return drawn.clamp(-STANDARDISED_LIMIT, STANDARDISED_LIMIT)
        drawn = counts + RATE_STRENGTH * self.label_rate
        rates = (drawn / drawn.sum(-1, keepdim=True)).log() - self.label_rate.log()
        return rates[..., 1:] - rates[..., :1] if self.classes == 2 else rates


def _averaged(table: nn.Module, ids: Tensor) -> Tensor:
    """Mean of the rows of a bag of ids [..., n]; id 0 pads."""
    present = (ids > 0).unsqueeze(-1)
    total: Tensor = (table(ids) * present).sum(-2)
    return total / present.sum(-2).clamp(min=1)

"""Which labels make a round of the outer loop in a deployment: by places in the input, as in one process.

So labels decide what theta is taught, and in how many steps, whatever portions they come in and whenever the trainer
looks. Of an input of one partition the rounds are those of `streams.program.rounds`, label for label.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, groupby

from streams.program.episode_labels import AT_ONCE, Placed
from streams.program.schedule import Schedule


def mixed(labels: Sequence[Placed]) -> list[Placed]:
    """Labels of all partitions as if each had come at an even pace; those of one partition stay in their order."""
    total, numbered = Counter(one.partition for one in labels), {one.partition: count(1) for one in labels}
    ranks = [(next(numbered[one.partition]) / (total[one.partition] + 1), one.partition) for one in labels]
    return [labels[n] for n in sorted(range(len(labels)), key=ranks.__getitem__)]


def rounds_of(
    labels: Sequence[Placed], taught: Mapping[str, int], schedule: Schedule, most: int = AT_ONCE
) -> list[list[Placed]]:
    """Labels cut where rounds fall due; more may come to the last.

    `taught` is how far each channel had come before. A round is one cell of the schedule, of `most` labels at most.
    """
    cells = zip(map(schedule.cell, _places(labels, taught)), labels, strict=True)
    return [
        [one for _, one in cell[at : at + most]]
        for cell in (list(group) for _, group in groupby(cells, key=lambda one: one[0]))
        for at in range(0, len(cell), most)
    ]


def _places(labels: Sequence[Placed], taught: Mapping[str, int]) -> Iterator[int]:
    """How many events of the input lie before each label, in all partitions: as far as labels tell."""
    come: dict[str, int] = {}
    for channel, offset in taught.items():
        source = channel.partition(":")[2]
        come[source] = max(come.get(source, 0), offset + 1)
    total = sum(come.values())
    for one in labels:
        before, offset = come.get(one.source, 0), one.label.source.offset
        yield total - before + max(before, offset)
        come[one.source] = max(before, offset + 1)
        total += come[one.source] - before

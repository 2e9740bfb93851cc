"""Columns that a settings file offers as features though they tell the label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from streams.settings.places import Input


def known_too_late(features: Sequence[str], source: Input) -> Iterator[str]:
    """Warnings of columns that no observation can know, yet are read of it: the label, and when it becomes known."""
    for setting, column in (("input.label", source.label), ("input.label_time", source.label_time)):
        itself = f"is {setting} itself, which no observation knows when it is served"
        if column in features:
            yield f"field {column!r} {itself}: every figure is too good; leave it out of [[features]]"
        if column in source.task:
            yield (
                f"field {column!r} of input.task {itself}: each task holds one label's events alone, so every figure "
                "is too good; leave it out of input.task"
            )
        if column is not None and column == source.id:
            yield (
                f"field {column!r} of input.id {itself}: observations with the same label are taken for one; let "
                "input.id name a column that differs in every row, or leave it out"
            )

"""Examples in a table: every row with a label is one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from engine.features.encoder import Features
from streams.events.identity import joined_task
from streams.events.record import Record
from streams.laboratory.source import AT_ONCE, ONE_TASK, Source, example
from streams.logs.file.log import open_table
from streams.logs.file.tables import Row, TableColumns

NO_TIME = 0.0


def read_table(path: Path, task: tuple[str, ...], label: str, time: str | None, features: Features) -> Source:
    """Open a CSV, JSONL or Parquet file.

    Raises:
        InputError: it cannot be read, or a column is missing.

    """
    columns = TableColumns(
        task=task, time=time or label, label=label
    )  # a table has to have some column of times
    table = open_table(path, columns, features)
    count = len(table.clock().times)

    def read(number: int, row: Row) -> Record:
        """One row as an example."""
        if row.fault is not None:
            return example(number, None, None, None, None, row.line)._replace(raw=row.raw, fault=row.fault)
        names = [row.values.get(name) for name in task]
        moment = row.values.get(time) if time else NO_TIME
        whose = joined_task(names) if task else ONE_TASK
        return example(number, whose, row.values.get(label), moment, row.values, row.line)

    def records() -> Iterator[Record]:
        """Every row, in the order of the file."""
        for begin in range(0, count, AT_ONCE):
            numbers = range(begin, min(begin + AT_ONCE, count))
            for number, row in zip(numbers, table.read(numbers), strict=True):
                yield read(number, row)

    return Source(str(path), table.unit, records, features, time is not None)

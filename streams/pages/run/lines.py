"""Lines of an output as columns, each line once.

Lines may come twice after a crash. They carry the place of the event that caused them, and offsets only
rise in one partition of one incarnation of a topic, so a repeat is a line at or below the last offset read of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import polars as pl

from engine.types import Bool
from streams.errors import InputError
from streams.logs.output import OutputLog

LINES_AT_ONCE = 16_384

Kind = pl.DataType | type[pl.DataType]
Members = Mapping[str, Kind]

OPTIONAL = {"incarnation": "0", "partition": 0}
"""What lines of earlier versions leave out, and what it is then."""

PLACE: Members = {"incarnation": pl.String, "partition": pl.Int64, "offset": pl.Int64}

NOTHING: Members = {}


def lines_once(
    log: OutputLog, members: Members = NOTHING, sound: pl.Expr | None = None
) -> Iterator[pl.DataFrame]:
    """The lines of an output in batches, without repeats: a column for each member, for `PLACE`, and `line` itself.

    `sound` says of a line whether it holds what it should: each of the members, where nothing is said.

    Raises:
        InputError: a line is damaged.

    """
    kinds = {**PLACE, **members}
    sound = pl.all_horizontal(pl.col("offset", *members).is_not_null()) if sound is None else sound
    position, last = 0, dict[tuple[object, ...], int]()
    while True:
        raw, after = log.read(position, LINES_AT_ONCE)
        if not raw:
            return
        found = _columns(raw, kinds, sound)
        if found is None:
            damaged = next(n for n, line in enumerate(raw) if _columns([line], kinds, sound) is None)
            raise _damaged(log, log.read(position, damaged)[1], kinds)
        position = after
        yield found.filter(_is_new(found, last))


def _columns(raw: Sequence[bytes], kinds: Members, sound: pl.Expr) -> pl.DataFrame | None:
    """Whole lines as columns; None where one of them is damaged."""
    try:
        found = pl.read_ndjson(b"\n".join(raw), schema=dict(kinds))
    except pl.exceptions.PolarsError:
        return None
    if len(found) != len(raw) or not found.select(sound.fill_null(value=False).all()).item():
        return None
    filled = [pl.col(name).fill_null(value) for name, value in OPTIONAL.items()]
    return found.with_columns(*filled, pl.Series("line", raw, pl.Binary))


def _is_new(found: pl.DataFrame, last: dict[tuple[object, ...], int]) -> pl.Series:
    """Which lines are no repeats; the last offset of each source is kept."""
    is_new: Bool = np.zeros(len(found), np.bool_)
    for source, lines in found.select(*PLACE).with_row_index("n").group_by("incarnation", "partition"):
        offsets = lines["offset"].to_numpy()
        before = np.maximum.accumulate([last.get(source, -1), *offsets])
        is_new[lines["n"].to_numpy()] = offsets > before[:-1]
        last[source] = int(before[-1])
    return pl.Series(is_new)


def _damaged(log: OutputLog, position: int, kinds: Members) -> InputError:
    return InputError(
        f"{log.place(position)} is damaged (no object with {', '.join(kinds)}); rows and theta do not hang on it: "
        "delete the line, or move the file away, and the page is of what is left, since `reptide rebuild` makes rows "
        "anew and no line of an output"
    )

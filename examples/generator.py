"""Streaming from a generator: a hundred events at a time, so that memory is bounded whatever the length.

Half way the model is saved and loaded, as where a process ends; what is served after is the same to the bit.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from reptide import Category, Numeric, Online, Regression


def journeys(seed: int) -> Iterator[dict[str, Any]]:
    """Journeys without end: a driver has a pace, a road has a length."""
    draws = np.random.default_rng(seed)
    pace = draws.uniform(0.7, 1.4, 10)
    for n in range(10**12):
        driver, road = int(draws.integers(10)), int(draws.integers(5))
        km = 5.0 + 3 * road + float(draws.normal())
        yield {"driver": f"d{driver}", "journey": n, "at": 60.0 * n, "road": f"r{road}", "km": km,
               "minutes": km * float(pace[driver]) + float(draws.normal())}  # fmt: skip


journey = journeys(7)
model = Online([Numeric("km"), Category("road")], Regression(0, 60), settings={"outer.every": 256})
for chunk in range(20):
    rows = list(islice(journey, 100))
    served = model.predict_many(rows, task="driver", id="journey", at="at")
    model.learn_many(rows, task="driver", label="minutes", id="journey", at="at")
    off = float(np.mean([abs(p - row["minutes"]) for p, row in zip(served, rows, strict=True)]))
    base = float(np.mean([abs(p.base - row["minutes"]) for p, row in zip(served, rows, strict=True)]))
    if chunk % 5 == 4:
        print(f"{100 * chunk + 100:,} journeys: off by {off:.2f} minutes, by the mean of all {base:.2f}")
    if chunk == 9:
        with TemporaryDirectory() as folder:
            model.save(Path(folder) / "journeys")
            model = Online.load(Path(folder) / "journeys")
print(model.report())

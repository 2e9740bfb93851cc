"""What it takes to start: processor time of the command's help, a check, a short run, and of importing the library.

Each is a process of its own, whose processor time the system counts: the median of three, machine code of numba being
on disk but for the first run ever. `check` of the stream of students (`statics`) needs `REPTIDE_DATA`, its folder;
without, it is left out.

    python -m benchmarks.start [--json F] [--quick]
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from shutil import rmtree
from statistics import median

from benchmarks.real_streams.sources import sources
from benchmarks.reporting import Figure, arguments, show, write

ROWS, TASKS = 1_000, 50
TIMES = 3
COMMAND = (sys.executable, "-m", "streams.cli")

SETTINGS = """
[input]
path = "visits.csv"
task = ["user"]
id = "visit"
time = "at"
label = "bought"
label_time = "known"
[target]
classes = ["no", "yes"]
[[features]]
encoder = "numeric"
name = "amount"
[[features]]
encoder = "category"
name = "country"
[run]
directory = "state"
"""


def main() -> None:
    """Start each, show and write what it took."""
    asked = arguments("What does it take to start?")
    with tempfile.TemporaryDirectory(prefix="start-") as scratch:
        folder = Path(scratch)
        first = processor_s((*COMMAND, "run", write_shop(folder)), folder)
        taken: dict[str, Figure] = {"the first reptide run": first}
        times = 1 if asked.quick else TIMES
        for name, command in starts(folder).items():
            taken[name] = median(processor_s(command, folder) for _ in range(times))
    show("Processor time of a start", ("what", "s"), list(taken.items()))
    write(asked.json, {name.replace(" ", "_"): seconds for name, seconds in taken.items()})


def starts(folder: Path) -> dict[str, Sequence[str]]:
    """What is started, by name."""
    commands: dict[str, Sequence[str]] = {
        "import reptide": (sys.executable, "-c", "import reptide"),
        "reptide --help": (*COMMAND, "--help"),
        "reptide run --help": (*COMMAND, "run", "--help"),
        "reptide run": (*COMMAND, "run", "shop.toml"),
        "reptide check": (*COMMAND, "check", "shop.toml"),
    }
    if "REPTIDE_DATA" in os.environ:
        statics = next(source for source in sources() if source.name == "statics")
        commands["reptide check, statics"] = (*COMMAND, "check", str(statics.write(folder / "statics")))
    return commands


def write_shop(folder: Path) -> str:
    """Write visits of some users, half of whom buy, and their settings, whose path is returned."""
    (folder / "shop.toml").write_text(SETTINGS, encoding="utf-8")
    draw = random.Random(0)
    lines = ["user,visit,at,amount,country,bought,known"]
    for visit in range(ROWS):
        amount, user = draw.gauss(0, 1), visit % TASKS
        bought = "yes" if amount + draw.gauss(0, 1) + user % 5 - 2 > 0 else "no"
        country = draw.choice(("de", "es", "fr"))
        lines.append(f"u{user},{visit},{visit * 60},{amount:.3f},{country},{bought},{visit * 60 + 30}")
    (folder / "visits.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return "shop.toml"


def processor_s(command: Sequence[str], folder: Path) -> float:
    """Seconds of processor time of a process that begins without state, with the machine code in a folder."""
    rmtree(folder / "state", ignore_errors=True)
    environment = os.environ | {"NUMBA_CACHE_DIR": str(folder / "machine code"), "OMP_NUM_THREADS": "1"}
    before = getrusage(RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True)
    after = getrusage(RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


if __name__ == "__main__":
    main()

"""`python -m benchmarks.real_streams`: what was served beside every baseline, stream by stream."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from time import perf_counter

import torch
from rich.console import Console

from benchmarks.real_streams.measured import BASELINES, Choices, measured, rules_compared
from benchmarks.real_streams.ours import load_all
from benchmarks.real_streams.shown import kept, markdown, rules_markdown
from benchmarks.real_streams.sources import Source, sources
from streams.settings.tree import values_of
from streams.system.machine import described_machine

QUICK_ROWS = 2_000
RULED = ("statics", "flights", "fraud_terminal")
"""Streams that the outer rules are compared on."""

SPEED = "what to compare with; speed: events a second of river's and deep-river's models, and no loss"


def main() -> None:
    """Run what the command line asks for."""
    options = _options()
    torch.set_num_threads(1)
    said = Console(stderr=True, highlight=False)
    began = perf_counter()

    def progress(text: str) -> None:
        said.print(f"{perf_counter() - began:7.0f} s  {text}", markup=False, soft_wrap=True)

    rows = QUICK_ROWS if options.quick else options.rows
    choices = Choices(
        BASELINES[options.baselines],
        rows,
        quick=options.quick,
        are_timed=options.baselines != "none",
        changes=values_of(options.set),
    )
    results: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory(prefix="real-streams-") as scratch:
        chosen = _chosen(options.only, RULED if options.rules else None)
        load_all(chosen[0], Path(scratch) / "first")
        for source in chosen:
            measure = rules_compared if options.rules else measured
            results[source.name] = measure(source, Path(scratch) / source.name, choices, progress)
            kept(options.json, results)
    print(rules_markdown(results) if options.rules else markdown(results))
    print(described_machine())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_streams", description=__doc__)
    parser.add_argument("--only", help="streams by name, separated by commas")
    parser.add_argument("--json", type=Path, help="write the figures to this file, after every stream")
    parser.add_argument("--quick", action="store_true", help=f"the first {QUICK_ROWS:,} rows of each stream")
    parser.add_argument("--rows", type=int, help="so many of the first rows of each stream")
    parser.add_argument("--baselines", choices=sorted(BASELINES), default="all", help=SPEED)
    parser.add_argument(
        "--set", action="append", default=[], help="another setting than the default, path=value"
    )
    parser.add_argument("--rules", action="store_true", help="compare outer rules instead of baselines")
    return parser.parse_args()


def _chosen(only: str | None, default: tuple[str, ...] | None) -> list[Source]:
    known = {source.name: source for source in sources()}
    names = only.split(",") if only else list(default or known)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"--only: no stream {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in names]


if __name__ == "__main__":
    main()

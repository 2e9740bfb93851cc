"""The figures as JSON, and as tables of Markdown for docs/results.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streams.system.machine import machine

METRICS = ("log_loss", "auc", "average_precision", "accuracy", "rmse", "mae")
NAMES = {"log_loss": "log loss", "auc": "AUC", "average_precision": "AP", "rmse": "RMSE", "mae": "MAE"}

EVENTS_PER_S = ("events_per_s", "river_events_per_s", "deep_river_events_per_s")
RATIOS = ("x_river", "x_deep_river")


def kept(path: Path | None, results: Mapping[str, Any]) -> None:
    """Write what is known so far, so that a run that is stopped keeps it."""
    if path is None:
        return
    worse = [f"{name}.{one}" for name, found in results.items() for one in found.get("worse_than", ())]
    least = {x: min(found[x] for found in results.values() if x in found) for x in RATIOS if _any(results, x)}
    everything = {**results, **least, "worse_cells": len(worse), "worse": worse, "machine": machine()}
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(everything, indent=1) + "\n")
    unfinished.replace(path)


def markdown(results: Mapping[str, Any]) -> str:
    """A table of each stream, and one of few labels; `!` marks what served is worse than, beyond the interval.

    Last a table of events a second, where they were compared.
    """
    parts = [f"### {name}\n\n{_stream(found)}" for name, found in results.items()]
    if _any(results, "x_river"):
        parts.append(f"### Events a second\n\n{_speeds(results)}")
    return "\n\n".join(parts) + "\n"


def _any(results: Mapping[str, Any], key: str) -> bool:
    return any(key in found for found in results.values())


def _speeds(results: Mapping[str, Any]) -> str:
    """Ours beside river's linear model and deep-river's network, a pipeline for each task."""
    rows = [
        [
            name,
            *(f"{found[key]:,.0f}" if key in found else "" for key in EVENTS_PER_S),
            *(f"{found[x]:.2f}" if x in found else found.get("deep_river", "") for x in RATIOS),
        ]
        for name, found in results.items()
    ]
    return table(["", "ours", "river", "deep-river", *RATIOS], rows)


def rules_markdown(results: Mapping[str, Any]) -> str:
    """A table of each stream: served and theta under each outer rule."""
    parts = []
    for name, found in results.items():
        metrics = _metrics(next(iter(found.values()))["served"])
        header = [
            "outer rule",
            *(f"{who}, {NAMES.get(m, m)}" for who in ("served", "theta") for m in metrics),
        ]
        rows = [
            [rule, *(number(said[who][m]) for who in ("served", "theta") for m in metrics)]
            for rule, said in found.items()
        ]
        parts.append(f"### {name}\n\n{table(header, rows)}")
    return "\n\n".join(parts) + "\n"


def _stream(found: Mapping[str, Any]) -> str:
    metrics, labels = _metrics(found["served"]), found["labels"]
    predictors = [name for name, said in found.items() if isinstance(said, dict) and metrics[0] in said]
    predictors.sort(key=lambda name: (name != "served", found[name][metrics[0]]))
    loss = "squared error" if metrics[0] == "rmse" else "log loss"
    header = ["", *(NAMES.get(m, m) for m in metrics), f"served - it, {loss} (95%)", "best with"]
    rows = [
        [
            f"**{name}**" if name == "served" else name,
            *(number(found[name][m]) for m in metrics),
            _gap(found, name),
            found["chosen"].get(name, ""),
        ]
        for name in predictors
    ]
    said = (
        f"{found['tasks']:,} tasks, {labels['known']:,} labels, {labels['scored']:,} of them scored, "
        f"{labels['judged']:,} judged; {found['events_per_s']:,.0f} events/s."
    )
    return f"{said}\n\n{table(header, rows)}\n\n{_few(found['few_labels'])}"


def _few(few: Mapping[str, Mapping[str, float]]) -> str:
    """Mean loss by the labels that were known of the task."""
    if not few:
        return ""
    names = list(next(iter(few.values())))
    rows = [
        [seen, *(f"{row[n]:,}" if n == "labels" else number(row[n]) for n in names)]
        for seen, row in few.items()
    ]
    return table(["labels known of the task", *names], rows)


def _metrics(said: Mapping[str, float]) -> list[str]:
    return [metric for metric in METRICS if metric in said]


def _gap(found: Mapping[str, Any], name: str) -> str:
    gap = found["differences"].get(name)
    if gap is None:
        return ""
    worse = " !" if gap["low"] > 0 else ""
    return f"{signed(gap['value'])} ({signed(gap['low'])} to {signed(gap['high'])}){worse}"


def number(value: float) -> str:
    """Four decimals, without the zero before the point."""
    return f"{value:.4f}".removeprefix("0") if abs(value) < 1 else f"{value:.3f}"


def signed(value: float) -> str:
    """The same, with its sign."""
    return ("-" if value < 0 else "+") + number(abs(value))


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)

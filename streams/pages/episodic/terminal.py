"""The table that an evaluation prints: fits 80 columns with four numbers of steps."""

from __future__ import annotations

from rich.table import Table

from engine.evaluation.episodic.report import EpisodicDict, Mode
from streams.pages.episodic.contents import headline, judgements, shots_of
from streams.pages.episodic.phrases import METRICS, bare, change, judged_on, standing
from streams.pages.kit.phrases import EN_DASH, plural


def table(evaluation: EpisodicDict) -> Table:
    """Every contender after each number of steps, and beside the reference; a section for each number of shots."""
    drawn = Table(title=_title(evaluation), title_justify="left")
    drawn.add_column("", overflow="fold")
    for step in evaluation["steps"]:
        drawn.add_column(str(step), justify="right", no_wrap=True)
    drawn.add_column(f"- {evaluation['reference']}", no_wrap=True)
    for shots in shots_of(evaluation):
        drawn.add_section()
        drawn.add_row(plural(shots, "shot"), style="bold")
        for name in evaluation["contenders"]:
            drawn.add_row(name, *_figures(evaluation, shots, name), _against(evaluation, shots, name))
            if judgements(evaluation, shots, name, mode="transductive"):
                cells = _figures(evaluation, shots, name, "transductive")
                drawn.add_row("  transductive", *cells, "not counted", style="dim")
    return drawn


def _title(evaluation: EpisodicDict) -> str:
    metric = evaluation["metric"]
    sizes = dict.fromkeys(judged_on(size) for size in evaluation["sizes"] if size["tasks"] == "held out")
    unit = " in %" if metric == "accuracy" else ""
    return f"{METRICS[metric]}{unit} by inner steps, 95% intervals; {', '.join(sizes)}"


def _figures(evaluation: EpisodicDict, shots: int, name: str, mode: Mode = "inductive") -> list[str]:
    """A cell for each number of steps; what adapts in one pass stands in the last."""
    metric = evaluation["metric"]
    found = [j["figures"] for j in judgements(evaluation, shots, name, mode=mode)]
    means = [bare(metric, f["mean"]) if f else EN_DASH for f in found]
    if last := found[-1]:
        means[-1] += f" ± {bare(metric, last['high'] - last['mean'])}"
    return [""] * (len(evaluation["steps"]) - len(means)) + means


def _against(evaluation: EpisodicDict, shots: int, name: str) -> str:
    gain, metric = headline(evaluation, shots, name)["against_reference"], evaluation["metric"]
    if gain is None:
        return ""
    width = bare(metric, gain["high"] - gain["value"])
    return f"{change(metric, gain['value'])} ± {width}" + " tie" * (standing(metric, gain) == 0)

"""The page of an episodic evaluation: one HTML file that fetches nothing, charts first."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from engine.evaluation.episodic.report import EpisodicDict
from streams.pages.episodic.contents import EpisodicPage, shots_of
from streams.pages.episodic.curves import curves_figure
from streams.pages.episodic.phrases import CUSTOMARY, METRICS, judged_on, rule, verdict, warnings
from streams.pages.episodic.pictures import episode_figure
from streams.pages.episodic.tables import contender_table, gap_table, steps_table
from streams.pages.kit.calendar_axis import minute
from streams.pages.kit.layout import page, section
from streams.pages.kit.markup import Markup, element, join
from streams.pages.kit.phrases import count, plural
from streams.system.files import write_whole

NOTES = (
    "Every contender adapts on the support set of an episode and is judged on its query set, each query alone "
    "(inductive), on the same episodes as all others. Intervals are 95%; where one of a difference includes zero, "
    "the two are called a tie. Where episodes repeat tasks, intervals are over tasks, and percentiles are of the "
    "means of tasks. What takes inner steps is compared after the last number of them. Log loss is in nats."
)


def write_page(path: Path, contents: EpisodicPage) -> None:
    """Write the page. Raises `StoreError` where the file cannot be written."""
    write_whole(path, render(contents).encode())


def render(contents: EpisodicPage) -> str:
    """Return the page as text."""
    evaluation = contents["evaluation"]
    parts = (_headline(contents), _curves(evaluation), _contenders(evaluation), _gaps(evaluation))
    more = (_episodes(evaluation), _settings(contents), _footer(contents))
    style = files("streams.pages.episodic").joinpath("page.css").read_text(encoding="utf-8")
    return page(contents["title"], *parts, *more, style=style)


def _headline(contents: EpisodicPage) -> Markup:
    evaluation = contents["evaluation"]
    return element(
        "header",
        element("p", "Reptide episodic evaluation", class_="kicker"),
        element("h1", contents["title"]),
        element("p", f"Judged on {contents['source']}", class_="source"),
        element("p", verdict(evaluation), class_="verdict"),
        *(element("p", said, class_="warning") for said in warnings(evaluation)),
        _sizes(evaluation),
    )


def _sizes(evaluation: EpisodicDict) -> Markup:
    sizes = evaluation["sizes"]
    said = " and ".join(dict.fromkeys(judged_on(size) for size in sizes))
    few = min(size["episodes"] for size in sizes) < CUSTOMARY
    warned = f" Fewer than the customary {count(CUSTOMARY)}: read the intervals with care." if few else ""
    return element(
        "p", f"{said} for each number of shots; seed {evaluation['seed']}.{warned}", class_="period"
    )


def _curves(evaluation: EpisodicDict) -> Markup:
    return section(
        f"Adaptation: {METRICS[evaluation['metric']]} by inner steps",
        *(curves_figure(evaluation, shots) for shots in shots_of(evaluation)),
    )


def _contenders(evaluation: EpisodicDict) -> Markup:
    return join(
        section(
            f"Contenders with {plural(shots, 'shot')}",
            contender_table(evaluation, shots),
            steps_table(evaluation, shots),
        )
        for shots in shots_of(evaluation)
    )


def _gaps(evaluation: EpisodicDict) -> Markup:
    if not evaluation["gaps"]:
        return Markup()
    said = element("p", rule(evaluation["metric"]))
    return section("Training tasks beside held-out tasks", said, gap_table(evaluation))


def _episodes(evaluation: EpisodicDict) -> Markup:
    drawn = [episode_figure(episode, n) for n, episode in enumerate(evaluation["episodes"], 1)]
    if not drawn:
        return Markup()
    subject, shots = next(iter(evaluation["contenders"])), evaluation["episodes"][0]["shots"]
    said = f"With {plural(shots, 'shot')}, of which one of each class is shown; as predicted by {subject}."
    return section("Episodes", element("p", said), *drawn)


def _settings(contents: EpisodicPage) -> Markup:
    command = element("pre", contents["command"]) if "command" in contents else Markup()
    settings = element("pre", contents["settings"]) if "settings" in contents else Markup()
    versions = [element("span", f"{name} {v}") for name, v in contents.get("versions", {}).items()]
    listed = element("p", *versions, class_="versions") if versions else Markup()
    machine = element("p", contents["machine"]) if "machine" in contents else Markup()
    return section("Settings and versions", command, settings, machine, listed)


def _footer(contents: EpisodicPage) -> Markup:
    finished = (
        element("p", f"Evaluation finished {minute(contents['finished_s'])} UTC.")
        if "finished_s" in contents
        else Markup()
    )
    return element("footer", element("p", NOTES), finished)

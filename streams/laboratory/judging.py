"""Evaluation of what was meta-trained on examples: held-out tasks, and baselines of the same budget beside it."""

from __future__ import annotations

import json
from pathlib import Path
from time import time

from engine.episodes.meta_train import Stretch
from engine.evaluation.episodic.baselines import PooledTraining, Progress, Tuning, baselines
from engine.evaluation.episodic.evaluate import Contender, Judging, Setting, evaluate
from engine.evaluation.episodic.report import EpisodicDict
from engine.learners.base import TakesSteps
from engine.outer.descent import FitSettings
from streams.errors import ReptideError
from streams.laboratory.assembled import Laboratory
from streams.laboratory.training import SavedTraining, is_finished
from streams.pages.episodic import EpisodicPage, write_page
from streams.pages.run.summary import versions
from streams.system.files import write_whole
from streams.system.machine import described_machine

REFERENCE = "fine-tuning"


def judge(laboratory: Laboratory, episodes: int, show: Progress) -> EpisodicDict:
    """Judge the best theta so far, and every baseline, on held-out episodes.

    Raises:
        ReptideError: nothing has been trained.

    """
    saved = SavedTraining(laboratory)
    found = saved.load()
    if found is None:
        raise ReptideError(
            f"nothing is trained in {saved.directory} yet; run `reptide meta-train` with this file"
        )
    return judge_theta(laboratory, found.stretch, found.processes, episodes, show)


def judge_theta(
    laboratory: Laboratory, stretch: Stretch, processes: int, episodes: int, show: Progress
) -> EpisodicDict:
    """Judge the best theta of a training of so many processes, and every baseline, on held-out episodes."""
    section, seed, device = laboratory.section, laboratory.settings.run.seed, laboratory.settings.run.device
    settings = [
        Setting(shots, laboratory.held_out(shots), laboratory.plain(shots))
        for shots in laboratory.judged_shots
    ]
    judging = Judging(REFERENCE, episodes, section.steps, seed, device=device)
    source = laboratory.plain(section.shots)
    drawn = laboratory.taught().draw(section.tasks, seed=seed, step=0)
    examples = sum(int((side.weight > 0).sum()) for side in drawn)
    outer = FitSettings(accumulate=section.accumulate * processes)
    beside = baselines(
        laboratory.problem,
        laboratory.parts.training,
        source,
        PooledTraining(stretch.state.step, section.tasks, examples, outer, seed, device),
        Tuning(laboratory.judges() or source, section.steps[-1], seed=seed, device=device),
        show,
    )
    contenders = [_trained(laboratory, stretch), *beside]
    return evaluate(contenders, settings, judging, lambda done, of: show("judging", done, of)).as_dict()


def _trained(laboratory: Laboratory, stretch: Stretch) -> Contender:
    settings, rounds = laboratory.settings, f"{stretch.state.step:,} rounds"
    if not is_finished(laboratory, stretch):
        rounds += f" of {laboratory.training.rounds:,}, unfinished"
    rule = f" by {settings.outer.rule}" if isinstance(laboratory.learner, TakesSteps) else ""
    note = f"meta-trained{rule}, {rounds}"
    return Contender(settings.learner, laboratory.builds, laboratory.problem, stretch.best, note)


def written(laboratory: Laboratory, evaluation: EpisodicDict, folder: Path) -> list[Path]:
    """Write an evaluation as JSON and as a page; returns where."""
    settings = laboratory.settings
    page = EpisodicPage(
        title=settings.title,
        source=laboratory.said,
        evaluation=evaluation,
        machine=described_machine(),
        finished_s=time(),
        settings=settings.model_dump_json(indent=2),
        versions=versions(),
    )
    found = folder / "evaluation.json"
    write_whole(found, json.dumps(page, indent=1, allow_nan=False).encode())
    write_page(folder / "evaluation.html", page)
    return [found, folder / "evaluation.html"]

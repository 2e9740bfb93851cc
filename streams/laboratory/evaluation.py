"""Evaluation of the training in a state directory, written as JSON and as a page."""

from __future__ import annotations

import json
from pathlib import Path
from time import time

from engine.evaluation.episodic.baselines import Progress
from engine.evaluation.episodic.report import EpisodicDict
from streams.errors import ReptideError
from streams.laboratory.assembled import Laboratory
from streams.laboratory.judging import judge_theta
from streams.laboratory.training import SavedTraining
from streams.pages.episodic import EpisodicPage, write_page
from streams.system.files import write_whole
from streams.system.machine import described_machine, versions


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

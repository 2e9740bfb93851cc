"""How a theta that was meta-trained on examples is judged: on held-out tasks, beside baselines of the same budget."""

from __future__ import annotations

from engine.episodes.meta_train import Stretch
from engine.evaluation.episodic.baselines import PooledTraining, Progress, Tuning, baselines
from engine.evaluation.episodic.evaluate import Contender, Judging, Setting, evaluate
from engine.evaluation.episodic.report import EpisodicDict
from engine.learners.base import TakesSteps
from engine.outer.descent import FitSettings
from streams.laboratory.assembled import Laboratory

REFERENCE = "fine-tuning"


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
    if not laboratory.training.is_finished(stretch):
        rounds += f" of {laboratory.training.rounds:,}, unfinished"
    rule = f" by {settings.outer.rule}" if isinstance(laboratory.learner, TakesSteps) else ""
    note = f"meta-trained{rule}, {rounds}"
    return Contender(settings.learner, laboratory.builds, laboratory.problem, stretch.best, note)

"""The trials of a search, in a file that a search started again goes on from; optuna keeps and suggests them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from streams.errors import InputError
from streams.tuning.space import Values

PRUNER = MedianPruner(n_startup_trials=4)

LOST = "stopped"
"""Marks a trial that did not end by itself: it is not counted."""


@dataclass(frozen=True)
class Journal:
    """One study in a journal file."""

    study: optuna.Study
    storage: JournalStorage

    def is_unpromising(self, number: int, step: int, loss: float) -> bool:
        """Note a loss so far, and compare it with what others had by then."""
        study = self.storage.get_study_id_from_name(self.study.study_name)
        trial = self.storage.get_trial_id_from_study_id_trial_number(study, number)
        self.storage.set_trial_intermediate_value(trial, step, loss)
        return PRUNER.prune(self.study, self.storage.get_trial(trial))

    def finished(self) -> list[FrozenTrial]:
        """Trials that came to their end."""
        return self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))

    def ended(self) -> int:
        """How many trials count: finished, unpromising or refused."""
        trials = self.study.get_trials(deepcopy=False)
        return sum(trial.state.is_finished() and LOST not in trial.user_attrs for trial in trials)

    def first(self, stand: Values) -> FrozenTrial | None:
        """The trial of the settings as they stand, if it has finished."""
        return next((trial for trial in self.finished() if trial.params == stand), None)

    def suggest(self, space: Mapping[str, BaseDistribution], first: Values | None = None) -> optuna.Trial:
        """The next trial; `first` are values to try now instead of suggested ones."""
        if first is not None:
            self.study.enqueue_trial(first)
        return self.study.ask(dict(space))

    def lose(self, number: int) -> None:
        """A trial was stopped from outside."""
        study = self.storage.get_study_id_from_name(self.study.study_name)
        trial = self.storage.get_trial_id_from_study_id_trial_number(study, number)
        self.storage.set_trial_user_attr(trial, LOST, True)
        self.study.tell(number, state=TrialState.FAIL)

    def tell(self, number: int, state: TrialState, loss: float | None = None) -> None:
        """How a trial ended."""
        self.study.tell(number, loss, state=state)


def opened(path: Path, name: str) -> Journal:
    """A study that is there, as a trial sees it."""
    storage = JournalStorage(JournalFileBackend(str(path)))
    return Journal(optuna.load_study(study_name=name, storage=storage, pruner=PRUNER), storage)


def begun(path: Path, name: str, seed: int) -> Journal:
    """A study to go on with, or a new one. Trials that a killed process left behind are lost.

    Raises:
        InputError: the file is damaged.

    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        storage = JournalStorage(JournalFileBackend(str(path)))
        study = optuna.create_study(study_name=name, storage=storage, pruner=PRUNER, load_if_exists=True)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is damaged ({error}): move it away, and the search begins anew; its trials are lost"
        ) from error
    study.sampler = TPESampler(seed=seed + len(study.get_trials(deepcopy=False)))
    journal = Journal(study, storage)
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        journal.lose(trial.number)
    return journal

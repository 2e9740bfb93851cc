"""What a trainer does once and then has: recordings of its tensor calls, and its compiled training loaded.

It takes seconds, in which events would be folded under a theta that knows nothing, or next to nothing.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from engine.types import Episode
from streams.events.learned_labels import UNSCORED, LearnedLabel
from streams.events.record import SourcePosition
from streams.program.label_window import LabelWindow
from streams.program.lessons import EPISODES
from streams.program.trainer import Trainer


def warm_up(trainer: Trainer) -> None:
    """Teach a round of made-up labels to the first theta, and another to what comes of it; nothing of it is kept."""
    problem = trainer.learner.problem
    x = np.zeros((1, problem.width), np.float32)
    y = np.full(1, getattr(problem.target, "low", 0.0), np.float32)
    ended = Episode(-1, 1, -1, x, y, np.ones(1, np.float32), x, y)
    place = SourcePosition(0, 0, 0)
    label = LearnedLabel("made up", place, 1, x[0], float(y[0]), UNSCORED, ended)
    labels = LabelWindow.of([label] * EPISODES)
    alone = replace(trainer, held_out=0.0)
    state = alone.state(None)
    for number in (1, 2):
        state = alone.teach(state, number, labels, EPISODES).state

"""All machine code made ahead: to an image nothing can be added once it is built, and a first start waits less.

What is compiled for a declared signature is made where its module is imported, the rest at its first call. So a
made-up task is folded, theta is trained on it by either compiled rule, and the simple models follow it.
"""

from __future__ import annotations

import numpy as np
import torch

from engine.evaluation.prequential.linear_model import LinearModel, Stream
from engine.evaluation.prequential.task_rates import TaskRates
from engine.features.columns import Category, Numeric
from engine.features.encoder import Features
from engine.features.history import History
from engine.learners.base import Learner
from engine.outer.backprop import Backprop
from engine.outer.descent import FitSettings
from engine.outer.fit import start
from engine.outer.online import Lesson, Online, Rates
from engine.outer.reptile import Reptile
from engine.problem import Problem
from engine.stream.fold import Engine
from engine.stream.spec import StreamSpec
from engine.stream.warm import warm_up
from engine.targets import Classification
from engine.text import lines, numbers  # noqa: F401 - compiled where they are imported
from engine.types import Batch, Episodes

EXAMPLES = 8


def compile_everything() -> None:
    """Make the machine code of a stream, of its training and of the models that it is shown beside."""
    target = Classification((0, 1))
    features = Features((Numeric("number"), Category("word", buckets=8)))
    engine = Engine(StreamSpec(Problem(features, target, adapts="head", history=History(), wide=True)))
    warm_up(engine)
    _train(engine.learner)
    for model in (TaskRates(target, (1.0,)), LinearModel(features, target)):
        model.follow(_stream(features.width))


def _train(learner: Learner) -> None:
    """A step, and one of Reptile."""
    batch = Batch(*(torch.ones(1, EXAMPLES, *more) for more in ((learner.problem.width,), (), ())))
    episodes, state = Episodes(batch, batch), start(learner, 0)
    Online(learner, Backprop(), Rates(FitSettings("Adam"))).learn([Lesson(batch, episodes)], state)
    Reptile()(learner, state.params, episodes)


def _stream(width: int) -> Stream:
    """An observation, and its label."""
    x, task = np.zeros((2, width), np.float32), np.zeros(2, np.int64)
    return Stream(x, task, np.array([0, ~0]), np.array([0.0, 1.0]))

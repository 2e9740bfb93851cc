"""Machine code that is made ahead is all that a stream, its training and the models beside it ask for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

ASKED = """
import gc
from numba.core.dispatcher import Dispatcher
from engine.ahead import compile_everything

def made():
    kept = [one for one in gc.get_objects() if isinstance(one, Dispatcher)]
    return {f"{one.__module__}.{one.__name__}{kinds}" for one in kept for kinds in one.overloads}

compile_everything()
ahead = made()

import numpy as np
from engine.evaluation.prequential.linear_model import LinearModel, Stream
from engine.evaluation.prequential.task_rates import TaskRates
from engine.outer.backprop import Backprop
from engine.outer.online import Online
from engine.outer.reptile import Reptile
from tests.engine.driving import SPECS, drive, engine_for, long_stream, theta
from tests.engine.test_online_kernel import KNOWN, RATES, begun, learner, lesson

for name in ("unbalanced", "regression with history", "wide"):
    driven = drive(engine_for(name), tasks=2)
    driven.fold(long_stream(0, 200, 2, name), theta(name, 1))
    driven.table.encode(pack=True)
for name in ("head", "everything", "a number", "a head of zeros"):
    taught = [lesson(KNOWN[name], seed) for seed in range(3)]
    Online(learner(name), Backprop(), RATES).learn(taught, begun(name))
    Reptile()(learner(name), begun(name).params, taught[0].episodes)
for name in ("wide", "regression"):
    features, target = SPECS[name].problem.features, SPECS[name].problem.target
    events = Stream(np.zeros((1, features.width), np.float32), np.zeros(1, np.int64), np.array([0, ~0]), np.zeros(2))
    for model in (TaskRates(target, (1.0,)), TaskRates(target, (1.0,), last=True), LinearModel(features, target)):
        model.follow(events)
print(*sorted(made() - ahead), sep="\\n", end="")
"""


def test_a_stream_and_its_training_ask_for_no_machine_code_that_was_not_made_ahead() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASKED], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr

"""Reptide: a model of its own for every task, learned as labels come.

    from reptide import Category, Classification, Numeric, Online

Each name is loaded when it is first asked for, so importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.checks.promises import CheckFailed
    from engine.checks.suite import check_detector, check_encoder, check_learner
    from engine.errors import EngineError
    from engine.features.columns import Category, Cyclic, Encoded, Numeric, Text
    from engine.learners.embedding import EmbeddingLearner
    from engine.targets import Classification, Regression
    from reptide.few_shot import Adapted, FewShot
    from reptide.online import Online
    from reptide.predictions import Probabilities, Value
    from reptide.record import Learned, Report
    from reptide.river import OnlineClassifier, OnlineRegressor
    from streams.errors import ReptideError

HOMES = {
    "engine.checks.promises": ("CheckFailed",),
    "engine.checks.suite": ("check_detector", "check_encoder", "check_learner"),
    "engine.errors": ("EngineError",),
    "engine.features.columns": ("Category", "Cyclic", "Encoded", "Numeric", "Text"),
    "engine.learners.embedding": ("EmbeddingLearner",),
    "engine.targets": ("Classification", "Regression"),
    "reptide.few_shot": ("Adapted", "FewShot"),
    "reptide.online": ("Online",),
    "reptide.predictions": ("Probabilities", "Value"),
    "reptide.record": ("Learned", "Report"),
    "reptide.river": ("OnlineClassifier", "OnlineRegressor"),
    "streams.errors": ("ReptideError",),
}
"""Where each name is defined."""

__all__ = [
    "Adapted",
    "Category",
    "CheckFailed",
    "Classification",
    "Cyclic",
    "EmbeddingLearner",
    "Encoded",
    "EngineError",
    "FewShot",
    "Learned",
    "Numeric",
    "Online",
    "OnlineClassifier",
    "OnlineRegressor",
    "Probabilities",
    "Regression",
    "Report",
    "ReptideError",
    "Text",
    "Value",
    "check_detector",
    "check_encoder",
    "check_learner",
]


def __getattr__(name: str) -> Any:
    for home, names in HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'reptide' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return __all__

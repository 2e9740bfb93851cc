"""The rows of a stream wherever they live, for the commands that look at one task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from engine.table import Layout, layout_of
from streams.settings import Settings
from streams.stores.base import RecordStore
from streams.wiring import learner, lmdb_store, task_spec


class State(NamedTuple):
    """A store, and how its rows are laid out."""

    store: RecordStore
    layout: Layout


@contextmanager
def opened(settings: Settings) -> Iterator[State]:
    """The store of a deployment where `[redis]` is set, else that of the state directory."""
    if settings.redis is None:
        store: RecordStore = lmdb_store(settings)
        layout = layout_of(learner(settings, task_spec(settings)))
    else:
        from streams.deployment import Deployment
        from streams.stores.redis import RedisStore

        deployment = Deployment(settings)
        layout = deployment.engine.layout
        store = RedisStore(
            deployment.server, settings.stream, layout
        )  # a row that is looked at lives no longer
    try:
        yield State(store, layout)
    finally:
        store.close()

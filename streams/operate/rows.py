"""The rows of a stream wherever they live, for the commands that look at one task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from engine.stream.layout import Layout, layout_of
from streams.assembly.embedded import lmdb_store
from streams.assembly.parts import described
from streams.settings.tree import Settings
from streams.stores.base import RecordStore


class State(NamedTuple):
    """A store, and how its rows are laid out."""

    store: RecordStore
    layout: Layout


@contextmanager
def opened(settings: Settings) -> Iterator[State]:
    """The store of a deployment where `[redis]` is set, else that of the state directory."""
    if settings.redis is None:
        store: RecordStore = lmdb_store(settings)
        layout = layout_of(*described(settings))
    else:
        from streams.assembly.deployed import Deployment
        from streams.stores.redis.rows import RedisStore

        deployment = Deployment(settings)
        layout = deployment.layout
        store = RedisStore(
            deployment.server, settings.stream, layout
        )  # a row that is looked at lives no longer
    try:
        yield State(store, layout)
    finally:
        store.close()

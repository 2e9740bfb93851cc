"""An earlier version of theta, published again as the newest."""

from __future__ import annotations

from dataclasses import replace

from streams.errors import StoreError
from streams.stores.versions import MetaStore

OF_THETA = ("step", "prior", "calibration")
"""Numbers of a checkpoint that belong to its theta; all others say how far it goes."""


def roll_back(store: MetaStore, version: int) -> int:
    """Publish an earlier version as the newest, to be adopted and gone on from; returns its number.

    Raises:
        CheckpointError: there is no such version.
        StoreError: a trainer published meanwhile.

    """
    newest, earlier = store.load(store.current()), store.load(version)
    kept = {name: value for name, value in newest.numbers.items() if name not in OF_THETA}
    numbers = kept | {name: value for name, value in earlier.numbers.items() if name in OF_THETA}
    if not store.publish(replace(earlier, version=newest.version + 1, numbers=numbers)):
        raise StoreError("a trainer published a version meanwhile; stop it, and do this again")
    return newest.version + 1

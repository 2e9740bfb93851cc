"""Of which stream a snapshot is: what it says of itself, and whether the settings are of the same."""

from __future__ import annotations

from collections.abc import Mapping

from engine.learners.base import Learner
from engine.learners.fingerprint import theta_fingerprint
from engine.stream.layout import Layout
from streams.errors import InputError
from streams.operate.snapshots.folder import Folder

SPEC = ("rows", "theta")


def described(layout: Layout, learner: Learner, kind: str) -> dict[str, str]:
    """The kind of a snapshot, and the fingerprints of its rows and its theta."""
    return {
        "kind": kind,
        "rows": f"{layout.fingerprint:016x}",
        "theta": theta_fingerprint(learner),
    }


def check_kind(folder: Folder, ours: Mapping[str, str]) -> None:
    """Refuse a snapshot of something else than what it would be restored to, which is `described`.

    Raises:
        InputError: it is of a deployment where a state directory is wanted, the other way round, or of another spec.
    """
    theirs = folder.described
    if theirs.get("kind") != ours["kind"]:
        raise InputError(
            f"the snapshot {folder.directory} is of a {theirs.get('kind')}, the settings are of a {ours['kind']}"
        )
    for name in SPEC:
        if theirs.get(name) != ours[name]:
            raise InputError(
                f"the snapshot {folder.directory} was taken under another stream spec ({name} {theirs.get(name)}, "
                f"the settings give {ours[name]}): features, target, learner, network or [memory] changed since; "
                "restore it under the settings of then"
            )

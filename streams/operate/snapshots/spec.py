"""Of which stream a snapshot is: what it says of itself, and whether the settings are of the same."""

from __future__ import annotations

from engine.learners.base import Learner
from engine.stream.fingerprints import theta_fingerprint
from engine.stream.layout import layout_of
from streams.errors import InputError
from streams.operate.snapshots.folder import Folder

SPEC = ("rows", "theta")


def described(learner: Learner, kind: str) -> dict[str, str]:
    """The kind of a snapshot, and the fingerprints of its rows and its theta."""
    return {
        "kind": kind,
        "rows": f"{layout_of(learner).fingerprint:016x}",
        "theta": theta_fingerprint(learner),
    }


def check_kind(folder: Folder, kind: str, learner: Learner) -> None:
    """Refuse a snapshot of something else than what it would be restored to.

    Raises:
        InputError: it is of a deployment where a state directory is wanted, the other way round, or of another spec.
    """
    ours, theirs = described(learner, kind), folder.described
    if theirs.get("kind") != kind:
        raise InputError(
            f"the snapshot {folder.directory} is of a {theirs.get('kind')}, the settings are of a {kind}"
        )
    for name in SPEC:
        if theirs.get(name) != ours[name]:
            raise InputError(
                f"the snapshot {folder.directory} was taken under another task spec ({name} {theirs.get(name)}, the "
                f"settings give {ours[name]}): features, target, learner, network or [memory] changed since; "
                "restore it under the settings of then"
            )

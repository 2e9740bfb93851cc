"""Which folders machine code is run from: where nobody can write who may not write to the sources of it as well."""

from __future__ import annotations

import os
import stat
from pathlib import Path

SOURCES = Path(__file__).parent


def is_trusted(folder: Path) -> bool:
    """Whether a folder is this user's, root's or the owner's of the sources, and no others can write to it.

    A group may, where the sources are that group's to write to too, as in a checkout that is made under umask 002.
    """
    found, ours = folder.stat(), SOURCES.stat()
    is_shared = bool(ours.st_mode & stat.S_IWGRP) and found.st_gid == ours.st_gid
    others = stat.S_IWOTH if is_shared else stat.S_IWOTH | stat.S_IWGRP
    return found.st_uid in (0, os.getuid(), ours.st_uid) and not found.st_mode & others

"""Every exception that the program raises on purpose.

    ReptideError
    ├── SettingsError      a wrong or unknown setting; names its path
    ├── InputError         an input that cannot be read at all, or is not the one that rows were folded from
    ├── StoreError         a store that cannot be used
    ├── Unavailable        a server that does not answer just now, or is full: ask again, nothing is lost
    │   └── Forgot         a store that was restarted, and may have forgotten what it was told lately
    └── CheckpointError    a version of theta that is damaged, cut short, or of another problem

`engine.types.EngineError` (and `engine.stream.table.RowError` under it) is the engine's own; the command line
prints both families as one sentence. Anything else that surfaces is a defect.
"""

from __future__ import annotations


class ReptideError(Exception):
    """The message names the thing, the place and the way out."""


class SettingsError(ReptideError):
    """A wrong or unknown setting."""


class InputError(ReptideError):
    """An input that cannot be read at all."""


class StoreError(ReptideError):
    """A store that cannot be used."""


class Unavailable(ReptideError):
    """A server that does not answer just now, or has no room: what was asked may be asked again as it was."""


class Forgot(Unavailable):
    """A store was restarted, or another server took its place: what it was told lately may be gone."""


class CheckpointError(ReptideError):
    """A version of theta that must not be used."""

"""What every section of the settings is: frozen, and without a key that is not known."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the tree."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

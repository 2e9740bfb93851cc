"""What every section of the settings is, frozen and without a key that is not known; names of the user's code."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

ImportString = Annotated[str, Field(pattern=r"^[\w.]+:[\w.]+$")]
"""`module:name`, of something of the user's."""


def is_import_string(name: str) -> bool:
    """Whether a setting names something of the user's; names of ours have no colon."""
    return ":" in name


class Section(BaseModel):
    """A part of the tree."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

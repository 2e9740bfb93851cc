"""Settings of `[[features]]`: which columns are read, and how each is encoded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, JsonValue, Tag

from streams.settings.base import ImportString, Section, is_import_string


class NumericFeature(Section):
    """A number, standardised."""

    encoder: Literal["numeric"]
    name: str
    optional: bool = False


class CategoryFeature(Section):
    """A value hashed and embedded."""

    encoder: Literal["category"]
    name: str
    buckets: int = 65_536
    embedding: int = 8


class CyclicFeature(Section):
    """A number on a circle."""

    encoder: Literal["cyclic"]
    name: str
    period: float


class TextFeature(Section):
    """Text as a bag of character n-grams."""

    encoder: Literal["text"]
    name: str
    buckets: int = 4096
    embedding: int = 32
    n: int = 3


OWN = "module:class"
"""The tag of a column that is named by import string."""


class OwnFeature(Section):
    """A column of the user's, by its class; every other key is an option of it."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue] = Field(init=False)

    encoder: ImportString
    name: str


def _kind(feature: Any) -> str | None:
    """The tag of one of `[[features]]`: its encoder, and one for all that are named by import string."""
    encoder = feature.get("encoder") if isinstance(feature, Mapping) else getattr(feature, "encoder", None)
    if not isinstance(encoder, str):
        return None
    return OWN if is_import_string(encoder) else encoder


Feature = Annotated[
    Annotated[NumericFeature, Tag("numeric")]
    | Annotated[CategoryFeature, Tag("category")]
    | Annotated[CyclicFeature, Tag("cyclic")]
    | Annotated[TextFeature, Tag("text")]
    | Annotated[OwnFeature, Tag(OWN)],
    Discriminator(_kind),
]

"""Settings of `[[features]]`: which columns are read, and how each is encoded."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from streams.settings.base import Section


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


Feature = Annotated[
    NumericFeature | CategoryFeature | CyclicFeature | TextFeature, Field(discriminator="encoder")
]

"""Lines that are one text already, which an output writes as it is: what lays them out need not be known for that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Joined(Sequence[bytes]):
    """Lines, of which `content` holds one after the other, each with its end, as bytes."""

    content: Any

"""What the engine raises on purpose, apart from its values: who prints it need not load torch."""

from __future__ import annotations


class EngineError(Exception):
    """Anything the engine refuses; the message names the thing, the place and the way out."""

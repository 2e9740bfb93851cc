"""What a user should know of a table before streaming it: one pass over its events, read as a stream reads them."""

from streams.checking.advice import Findings, findings
from streams.checking.terminal import show, warn

__all__ = ["Findings", "findings", "show", "warn"]

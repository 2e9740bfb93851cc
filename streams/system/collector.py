"""The garbage collector, kept off what lives as long as the process.

A start makes hundreds of thousands of objects that stay, most of them torch's, and a batch makes as many tuples and
dictionaries, none of them in a cycle. With Python's own settings the collector goes through all of them again and
again: it was measured to take a sixth of a start, a third of a check of a large table, and a fifth of a stream.
"""

from __future__ import annotations

import gc


def collect_seldom() -> None:
    """Look for cycles in large numbers of new objects alone."""
    gc.set_threshold(50_000, 20, 50)


def leave_imports_out() -> None:
    """Never look again at what is there: for a process that has imported what it needs, and done nothing yet."""
    gc.freeze()


def settle() -> None:
    """Drop the garbage that there is, and never look again at what stays: for a process about to stream."""
    gc.collect()
    gc.freeze()
    collect_seldom()

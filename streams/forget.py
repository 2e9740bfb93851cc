"""`reptide forget`: a task's row, its pending observations, and every line on this machine that was said of it.

The page of the run, which names tasks, goes too: the next run writes it anew. What stays is a tombstone, a keyed hash
of the id, so that replaying the log does not bring the task back. The input is the user's own, and is not touched;
topics of a deployment forget by their retention.
"""

from __future__ import annotations

import orjson

from streams.report import PAGE
from streams.settings import Settings
from streams.state import opened
from streams.wiring import output_files

FOR_EVER_S = 100 * 365 * 86_400.0
"""A file can be replayed at any time."""


def forget_task(settings: Settings, task: str) -> str:
    """Forget a task; no file of the state directory holds its bytes afterwards. Returns what was done."""
    for_s = FOR_EVER_S if settings.redis is None else settings.redis.tombstone_s
    with opened(settings) as state:
        row = "its row is deleted" if state.store.forget(task, for_s) else "there was no row"
    if settings.redis is not None:
        return f"{row}; the topics still hold its events and outputs, as long as their retention says"
    (settings.run.directory / PAGE).unlink(missing_ok=True)
    return f"{row}; {_erased(settings, task):,} lines of the outputs are erased, and the report"


def _erased(settings: Settings, task: str) -> int:
    logs = output_files(settings).values()
    erased = sum(log.erase(lambda line: speaks_of(line, task)) for log in logs)
    for log in logs:
        log.close()
    return erased


def speaks_of(line: bytes, task: str) -> bool:
    """Whether a line of an output is about a task: by name, or as a dead letter whose bytes hold the name."""
    said = orjson.loads(line)
    if "bytes_hex" in said:
        return task.encode().hex() in said["bytes_hex"]
    return str(said.get("task", said.get("record", {}).get("task"))) == task

"""`reptide forget` in one process: a task's row, its pending observations, and every line that was said of it.

What stays is a tombstone, a keyed hash of the id, so that replaying the log does not bring the task back.
The input itself is the user's own, and is not touched.
"""

from __future__ import annotations

import orjson

from streams.settings import Settings
from streams.wiring import embedded

FOR_EVER_S = 100 * 365 * 86_400.0
"""A file can be replayed at any time."""


def forget_task(settings: Settings, task: str) -> str:
    """Forget a task; no file of the state directory holds its bytes afterwards. Returns what was done."""
    program = embedded(settings)
    try:
        known = program.store.forget(task, FOR_EVER_S)
        erased = sum(log.erase(lambda line: speaks_of(line, task)) for log in program.outputs.values())
    finally:
        program.close()
    return (
        f"{'its row is deleted' if known else 'there was no row'}, {erased:,} lines of the outputs are erased"
    )


def speaks_of(line: bytes, task: str) -> bool:
    """Whether a line of an output is about a task: by name, or as a dead letter whose bytes hold the name."""
    said = orjson.loads(line)
    if "bytes_hex" in said:
        return task.encode().hex() in said["bytes_hex"]
    return str(said.get("task", said.get("record", {}).get("task"))) == task

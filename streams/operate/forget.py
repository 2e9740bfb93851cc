"""`reptide forget`: a task's row, its pending observations, and every line on this machine that was said of it.

The page of the run, which names tasks, goes too: the next run writes it anew. What stays is a tombstone, a keyed hash
of the id, so that replaying the log does not bring the task back, not even as a dead letter. The input is the user's
own, and is not touched; topics of a deployment forget by their retention. What `tune` and `evaluate` write names no
task.
"""

from __future__ import annotations

import json
import re

import orjson

from streams.assembly.embedded import output_files
from streams.events.identity import parts_of
from streams.events.wording import shown
from streams.operate.rows import opened
from streams.pages.kit.phrases import plural
from streams.pages.run import PAGE
from streams.settings.places import FOR_EVER_S
from streams.settings.tree import Settings
from streams.system.locks import held

ROW_DELETED = "its row is deleted"

ESCAPED = re.compile(r'(?:\\(?:u[0-9a-fA-F]{4}|["\\/bfnrt]))+')
"""A run of characters as JSON may write them: two together may be one, beyond the first 65,536."""


def forget_task(settings: Settings, task: str) -> str:
    """Forget a task; no file of the state directory holds its bytes afterwards. Returns what was done."""
    if settings.redis is not None:
        deployed = _row_forgotten(settings, task, settings.redis.tombstone_s)
        row = ROW_DELETED if deployed else "there was no row: no such task is known, or its row had expired"
        return (
            f"{row}; the topics still hold its events and outputs, as long as their retention says; "
            "snapshots of before hold its row"
        )
    with held(settings.run.directory):
        had_row = _row_forgotten(settings, task, FOR_EVER_S)
        (settings.run.directory / PAGE).unlink(missing_ok=True)
        erased = _erased(settings, task)
    if not had_row and not erased:
        return (
            f"no such task is known as {shown(task)}: there was no row, and no line of the outputs is about it; "
            "events of it that come later are passed over"
        )
    row = ROW_DELETED if had_row else "there was no row"
    return f"{row}; {plural(erased, 'line')} of the outputs erased, and the report; snapshots of before still hold it"


def _row_forgotten(settings: Settings, task: str, for_s: float) -> bool:
    with opened(settings) as state:
        return task in state.store.forget({task}, for_s)


def _erased(settings: Settings, task: str) -> int:
    logs = output_files(settings).values()
    erased = sum(log.erase(lambda line: speaks_of(line, task)) for log in logs)
    for log in logs:
        log.close()
    return erased


def speaks_of(line: bytes, task: str) -> bool:
    """Whether a line of an output is about a task.

    A dead letter that names its task is about that one alone. One whose task nobody could read is, where its bytes
    hold the name as a word, or, of a task of several columns, each part of it; and so is a line that is damaged.
    """
    try:
        said = orjson.loads(line)
    except ValueError:
        return _names(line, task)
    if not isinstance(said, dict):
        return _names(line, task)
    if said.get("task") is not None:
        return str(said["task"]) == task
    if "bytes_hex" in said:
        return _names(bytes.fromhex(said["bytes_hex"]), task)
    return str(said.get("record", {}).get("task")) == task


def _names(content: bytes, task: str) -> bool:
    """Whether bytes hold a task's name as a word of its own, plainly or as JSON or CSV write it."""
    plain = content.decode(errors="replace")
    spelled = (plain, plain.replace('""', '"'), ESCAPED.sub(_unescaped, plain))
    words = [re.compile(rf"(?<!\w){re.escape(part)}(?!\w)") for part in parts_of(task)]
    return any(all(word.search(text) for word in words) for text in spelled)


def _unescaped(escaped: re.Match[str]) -> str:
    try:
        return str(json.loads(f'"{escaped[0]}"'))
    except ValueError:
        return escaped[0]

"""How far a file was read, kept beside the rows with what tells whether it is still the same file.

A file may grow: where all that it held is as it was, and no event that was handed out has another offset now, reading
goes on where it was. Any other change is refused before anything is touched: offsets would mean other events.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from streams.errors import InputError
from streams.logs.file.content import Content
from streams.system.files import write_whole

OWN_DIRECTORY = "give this table a directory of its own (run.directory), where it is streamed from its start"


@dataclass(frozen=True)
class FilePosition:
    """What `position.json` holds."""

    incarnation: int
    columns: dict[str, Any]
    """What the columns of the table mean, as the section [input] names them."""
    rows: int
    """Of the table, when it was opened last."""
    content: Content
    """Of these rows."""
    offset: int = 0
    """Everything below it has taken effect."""
    through: int = 0
    """Nothing at or above it was ever handed out."""
    order: str = ""
    """Digest of what each offset below `through` is."""

    def write(self, path: Path) -> None:
        """Keep it over a crash."""
        content = {**vars(self), "incarnation": f"{self.incarnation:016x}", "content": [*self.content]}
        write_whole(path, orjson.dumps(content))


def read_position(path: Path) -> FilePosition | None:
    """The position kept in a file; None where there is none.

    Raises:
        InputError: it is damaged.

    """
    try:
        kept = orjson.loads(path.read_bytes())
        incarnation, content = int(kept["incarnation"], 16), Content(*kept["content"])
        position = FilePosition(**{**kept, "incarnation": incarnation, "content": content})
        if not 0 <= position.offset <= position.through:
            raise ValueError
        return position
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is damaged ({type(error).__name__}): it no longer "
            f"tells how far the table was read; restore it from a backup, or {OWN_DIRECTORY}"
        ) from None


def check_columns(position: FilePosition, now: dict[str, Any], directory: Path) -> None:
    """Refuse other meanings of the columns: offsets hang on them.

    Raises:
        InputError: names the setting.

    """
    for name, value in now.items():
        before = position.columns.get(name)
        if before != value:
            raise InputError(
                f"input.{name} is {value!r}, and {directory} was made with {before!r}; set it back, or "
                f"{OWN_DIRECTORY}"
            )


def check_content(position: FilePosition, start: Content | None, now: Content, table: Path) -> None:
    """Refuse a table that does not begin with all that it held before.

    Raises:
        InputError: it was cut short or changed, or is another table.

    """
    if start != position.content:
        what = (
            "is shorter than it was" if now.extent < position.content.extent else "does not begin as it did"
        )
        raise InputError(
            f"{table} {what} when its first {position.rows:,} rows were read, so it is another table, or rows of it "
            f"were changed; put it back as it was, with new rows at its end, or {OWN_DIRECTORY}"
        )

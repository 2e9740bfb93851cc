"""Whose a state directory is: one process', one table's, and that of one set of settings.

Whatever is refused is refused before a byte in it was touched.
"""

from __future__ import annotations

from collections.abc import Callable

from streams.errors import InputError
from streams.logs.file.log import POSITION, FileLog
from streams.logs.file.position import read_position
from streams.settings.kept import OWN_DIRECTORY, SettingsFile, agree, of_run, refuse_changed
from streams.settings.tree import Settings
from streams.stores.base import RecordStore
from streams.system.locks import Held


def claimed(settings: Settings, open_log: Callable[[], FileLog]) -> tuple[Held, FileLog]:
    """Take the state directory for this process, and open its log.

    Raises:
        InputError: another process uses the directory, or it is of another table.
        SettingsError: its rows were made under other settings.

    """
    directory = settings.run.directory
    if not directory.exists():
        log = open_log()  # refused, it leaves no directory behind
        return Held(directory), log
    held = Held(directory)
    try:
        _agree_on_settings(settings)
        return held, open_log()
    except BaseException:
        held.let_go()
        raise


def keep_settings(settings: Settings, log: FileLog) -> None:
    """Keep the settings that events are to be folded under, where none was folded yet."""
    if not log.is_begun:
        SettingsFile(settings.run.directory / "settings.json").write(of_run(settings))


def check_rows(settings: Settings, store: RecordStore, log: FileLog) -> None:
    """Refuse rows of which no position is kept.

    Raises:
        InputError: nothing tells what they were made of.

    """
    if not log.is_begun and store.adoptions():
        raise InputError(
            f"{settings.run.directory / POSITION} is not there, and nothing else tells what the rows beside it were "
            f"made of; restore it from a backup, or give the table {OWN_DIRECTORY}"
        )


def check_settings(settings: Settings) -> None:
    """Refuse settings other than those that rows were made under; writes nothing.

    Raises:
        SettingsError: names each of them.

    """
    kept = SettingsFile(settings.run.directory / "settings.json").read() or {}
    refuse_changed(kept, of_run(settings), _made_in(settings), OWN_DIRECTORY)


def _agree_on_settings(settings: Settings) -> None:
    directory = settings.run.directory
    position = read_position(directory / POSITION)
    if position is not None and position.through:
        kept = SettingsFile(directory / "settings.json")
        if kept.read() is None:
            raise InputError(
                f"{directory / 'settings.json'} is not there, and nothing else tells under which settings the rows "
                f"beside it were made; restore it from a backup, or give the table {OWN_DIRECTORY}"
            )
        agree(kept, of_run(settings), _made_in(settings), OWN_DIRECTORY)


def _made_in(settings: Settings) -> str:
    return f"rows and outputs in {settings.run.directory}"

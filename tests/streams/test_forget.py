"""A task that is forgotten leaves no bytes behind, does not come back, and disturbs nobody else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streams.assembly.embedded import embedded
from streams.logs.output import OutputFile
from streams.operate.forget import forget_task, speaks_of
from streams.operate.inspect import describe_task
from streams.pages.run import PAGE
from streams.replay.embedded import rebuild
from streams.settings.tree import Settings
from tests.faults.shop import left, run_to_the_end, shop, users

USER = "user 3/{}"


def bytes_of(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file())


def rows(settings: Settings) -> dict[str, dict[str, bytes]]:
    program = embedded(settings)
    try:
        return left(program).rows
    finally:
        program.close()


def test_nothing_of_a_forgotten_task_is_left_and_the_others_are_as_they_were(tmp_path: Path) -> None:
    settings = shop(tmp_path)
    before = run_to_the_end(settings)
    assert USER.encode() in bytes_of(settings.run.directory)
    page = settings.run.directory / PAGE
    page.write_text(f"the latest alarm was raised by {USER}")
    assert describe_task(settings, USER)["known"]
    told = forget_task(settings, USER)
    assert "its row is deleted" in told
    content = bytes_of(settings.run.directory)
    assert USER.encode() not in content
    assert USER.encode().hex().encode() not in content
    assert not describe_task(settings, USER)["known"]
    after = rows(settings)
    assert {user: row for user, row in after.items() if user != USER} == {
        user: row for user, row in before.rows.items() if user != USER
    }


def test_forgetting_a_task_that_was_never_there_says_so_and_speaks_of_no_snapshots(tmp_path: Path) -> None:
    settings = shop(tmp_path)
    run_to_the_end(settings)
    told = forget_task(settings, "nobody")
    assert told.startswith("no such task is known as 'nobody': there was no row")
    assert "snapshots" not in told


def test_replaying_the_log_does_not_bring_it_back(tmp_path: Path) -> None:
    settings = shop(tmp_path)
    before = run_to_the_end(settings)
    forget_task(settings, USER)
    rebuild(settings, lambda position, progress: None)
    assert not describe_task(settings, USER)["known"]
    after = rows(settings)
    assert all(after[user] == row for user, row in before.rows.items() if user != USER)
    program = embedded(settings)
    assert len(list(program.store.tasks())) == len(users(program)) - 1
    program.close()


def test_a_task_forgotten_before_its_first_event_is_never_folded(tmp_path: Path) -> None:
    settings = shop(tmp_path)
    assert "there was no row" in forget_task(settings, USER)
    run_to_the_end(settings)
    assert not describe_task(settings, USER)["known"]
    assert USER.encode() not in bytes_of(settings.run.directory / "outputs")


BROKEN = """
{"tenant": "a", "user": "jos\\u00e9", "at": 5, "a": 1, "b": 1, "bought": "x"
{"tenant": "a", "user": "eve", "at": 6, "a": 1, "b": 1, "bought": "x"
{"tenant": "a", "user": "jos\\u00e9", "at": 7, "a": "much", "b": 1, "bought": "x", "note": "of jos\\u00e9"}
{"tenant": "a", "user": "eve", "at": 8, "a": "much", "b": 1, "bought": "x", "note": "met jos\\u00e9 of a"}
{"tenant": "b", "user": "jos\\u00e9", "at": 9, "a": "much", "b": 1, "bought": "x"}
"""


def two_columns(tmp_path: Path) -> Settings:
    settings = shop(tmp_path)
    (tmp_path / "events.jsonl").write_text(BROKEN)
    assert settings.input
    source = settings.input.model_copy(
        update={"path": tmp_path / "events.jsonl", "task": ("tenant", "user"), "label_time": None}
    )
    return settings.model_copy(update={"input": source})


def letters(settings: Settings) -> list[str]:
    log = OutputFile(settings.run.directory / "outputs" / "dead-letter.jsonl")
    read = [bytes.fromhex(json.loads(line)["bytes_hex"]).decode() for line in log.read(0, 100)[0]]
    log.close()
    return read


def test_dead_letters_of_the_task_go_however_it_is_written_and_those_of_others_stay(tmp_path: Path) -> None:
    settings = two_columns(tmp_path)
    run_to_the_end(settings)
    before = letters(settings)
    assert {line.split('"at": ')[1][0] for line in before} == set("56789")
    assert "the report" in forget_task(settings, "a|jos\u00e9")
    after = letters(settings)
    assert after == [line for line in before if '"at": 5' not in line and '"at": 7' not in line]


def test_refused_events_of_a_forgotten_task_are_no_dead_letters_either(tmp_path: Path) -> None:
    settings = two_columns(tmp_path)
    forget_task(settings, "a|jos\u00e9")
    run_to_the_end(settings)
    kept = "".join(letters(settings))
    assert '"at": 7' not in kept
    assert all(f'"at": {time}' in kept for time in (6, 8, 9))


@pytest.mark.parametrize(
    ("task", "said", "speaks"),
    [
        ("1", {"task": "1"}, True),
        ("1", {"task": "eve", "bytes_hex": b"eve,1700000010,x,NL,no".hex()}, False),
        ("1", {"task": None, "bytes_hex": b"eve,1700000010,x".hex()}, False),
        ("1", {"task": None, "bytes_hex": b"eve,x,1,".hex()}, True),
        ("17", {"bytes_hex": b"{'user': 17".hex()}, True),
        ('the "king"', {"bytes_hex": b'"the ""king""",x,1'.hex()}, True),
        ("a/b\\c", {"bytes_hex": rb'{"user": "a\/b\\c", x'.hex()}, True),
        ("\U0001f600", {"bytes_hex": rb'{"user": "\ud83d\ude00", x'.hex()}, True),
        ("acme|bob", {"bytes_hex": b"acme,bob,17,x,y".hex()}, True),
        ("acme|bob", {"bytes_hex": b"acme,ann,17,x,y".hex()}, False),
        (r"a\|b|c", {"bytes_hex": b"a|b,c,17,x,y".hex()}, True),
        (r"a\|b|c", {"bytes_hex": b"a,c,17,x,y".hex()}, False),
        ("ann", {"task": None, "bytes_hex": b"\xff\xfeann".hex()}, True),
        ("7", {"task": "7", "record": {"task": 7.0}}, True),
        ("7", {"record": {"task": 7}}, True),
        ("7", {"record": {"task": 70}}, False),
        ("ann", [], False),
    ],
)
def test_a_line_is_about_the_task_that_it_names(task: str, said: Any, speaks: bool) -> None:
    assert speaks_of(json.dumps(said).encode(), task) == speaks


def test_a_damaged_line_is_about_the_task_whose_name_it_holds() -> None:
    damaged = b'{"task": "ann", "time": \xff'
    assert speaks_of(damaged, "ann")
    assert not speaks_of(damaged, "eve")


def test_positions_in_an_output_stay_where_lines_are_erased(tmp_path: Path) -> None:
    log = OutputFile(tmp_path / "said.jsonl")
    log.append([b'{"n":1}', b'{"n":22}', b'{"n":3}'])
    _, after_two = log.read(0, 2)
    assert log.erase(lambda line: b"22" in line) == 1
    assert log.read(0, 9)[0] == [b'{"n":1}', b'{"n":3}']
    assert log.read(after_two, 9)[0] == [b'{"n":3}']
    assert log.read(0, 1)[0] == [b'{"n":1}']
    assert log.read(log.read(0, 1)[1], 1)[0] == [b'{"n":3}']
    assert log.erase(lambda line: True) == 2
    assert log.read(0, 9)[0] == []
    log.append([b'{"n":4}'])
    assert log.read(0, 9)[0] == [b'{"n":4}']
    log.close()

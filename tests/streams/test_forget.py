"""A task that is forgotten leaves no bytes behind, does not come back, and disturbs nobody else."""

from __future__ import annotations

from pathlib import Path

from streams.forget import forget_task
from streams.inspect import describe_task
from streams.logs.output import OutputFile
from streams.rebuild import rebuild
from streams.report import PAGE
from streams.settings import Settings
from streams.wiring import embedded
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


def test_nothing_of_a_forgotten_task_is_left_and_the_others_are_as_they_were(tmp_path):
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


def test_replaying_the_log_does_not_bring_it_back(tmp_path):
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


def test_a_task_forgotten_before_its_first_event_is_never_folded(tmp_path):
    settings = shop(tmp_path)
    assert "there was no row" in forget_task(settings, USER)
    run_to_the_end(settings)
    assert not describe_task(settings, USER)["known"]
    assert USER.encode() not in bytes_of(settings.run.directory / "outputs")


def test_positions_in_an_output_stay_where_lines_are_erased(tmp_path):
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

"""A state directory is one process', and that of one set of settings; whatever is refused leaves it as it was."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from streams.assembly.embedded import embedded
from streams.errors import InputError, SettingsError, StoreError
from streams.operate.forget import forget_task
from streams.operate.inspect import describe_task
from streams.replay.embedded import rebuild
from streams.settings.kept import agree, of_rows, of_run
from streams.settings.tree import Settings, load_settings
from streams.system.locks import Held
from tests.faults.shop import files_of, run_to_the_end, settings_of, shop, stop_after, what_is_left

HOLDER = """
import sys, pathlib
from streams.system.locks import Held
held = Held(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("finished")
    run_to_the_end(shop(directory, observations=60))
    return directory


@pytest.fixture
def settings(finished: Path, tmp_path: Path) -> Settings:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return settings_of(tmp_path)


def rebuilt(settings: Settings) -> int:
    return rebuild(settings, lambda position, progress: None)


COMMANDS: dict[str, Callable[[Settings], object]] = {
    "run": run_to_the_end,
    "rebuild": rebuilt,
    "forget": lambda settings: forget_task(settings, "user 1/{}"),
}


# One process


@pytest.mark.parametrize("command", COMMANDS)
def test_a_directory_in_use_is_refused_by_its_name_and_the_process_that_uses_it(
    settings: Settings, command: str
) -> None:
    directory = settings.run.directory
    held = Held(directory)
    before = files_of(directory)
    with pytest.raises(InputError, match=f"{directory} is in use by process {os.getpid()}"):
        COMMANDS[command](settings)
    assert files_of(directory) == before
    held.let_go()
    COMMANDS[command](settings)


def test_a_directory_is_free_once_its_process_was_killed(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(InputError, match=f"in use by process {holder.pid}"):
        Held(tmp_path)
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    Held(tmp_path).let_go()


def test_a_directory_is_free_again_where_its_start_was_refused(settings: Settings) -> None:
    assert settings.input is not None
    gone = settings.input.model_copy(update={"path": Path("gone.csv")})
    with pytest.raises(InputError, match="no such file"):
        embedded(settings.model_copy(update={"input": gone}))
    run_to_the_end(settings)


def test_a_task_is_looked_at_while_the_directory_is_in_use(settings: Settings) -> None:
    held = Held(settings.run.directory)
    assert describe_task(settings, "user 1/{}")["known"]
    held.let_go()


def test_looking_at_a_task_makes_no_state_directory(tmp_path: Path) -> None:
    settings = shop(tmp_path, observations=60)
    with pytest.raises(InputError, match="holds no rows yet"):
        describe_task(settings, "user 1/{}")
    assert not settings.run.directory.exists()


# One set of settings


def under(settings: Settings, *flags: str) -> Settings:
    return load_settings(settings.run.directory.parent / "shop.toml", {}, flags)


CHANGES = {
    "outer.every=16": r"outer\.every is 16 and was \d+",
    "outer.optimizer=SGD": r'outer\.optimizer is "SGD" and was "Adam"',
    "inner.clip=0.5": r"inner\.clip is 0\.5 and was 1\.0",
    "inner.compile=true": r"inner\.compile is true and was false",
    "memory.ttl_s=60": r"memory\.ttl_s is 60\.0 and was",
    "memory.balanced=false": r"memory\.balanced is false and was true",
    "memory.precision=half": r'memory\.precision is "half" and was "single".* set them back, or give',
    'memory.exact=["a"]': r'memory\.exact is \["a"\] and was \[\]',
    "run.seed=9": r"run\.seed is 9 and was 0",
}


@pytest.mark.parametrize("flag", CHANGES)
@pytest.mark.parametrize("command", ["run", "rebuild"])
def test_a_setting_changed_midway_is_refused_by_name_before_a_byte_is_touched(
    settings: Settings, flag: str, command: str
) -> None:
    before = files_of(settings.run.directory)
    with pytest.raises(SettingsError, match=CHANGES[flag]):
        COMMANDS[command](under(settings, flag))
    assert files_of(settings.run.directory) == before


def test_set_back_it_goes_on(settings: Settings) -> None:
    whole = what_is_left(settings)
    with pytest.raises(SettingsError, match="set them back"):
        rebuilt(under(settings, "outer.every=16"))
    rebuilt(settings)
    assert what_is_left(settings).differs(whole) == []


def test_in_a_directory_of_its_own_a_changed_setting_is_taken(settings: Settings) -> None:
    other = under(settings, "outer.every=16", "run.directory=own")
    run_to_the_end(other)
    whole = what_is_left(other)
    rebuilt(other)
    assert what_is_left(other).differs(whole) == []


def test_settings_that_change_no_bit_may_be_changed(settings: Settings) -> None:
    whole = what_is_left(settings)
    other = under(settings, "title=Other", "run.batch=7", "run.durable=false", "run.max_gib=0.2")
    rebuilt(other)
    assert what_is_left(other).differs(whole) == []


def test_settings_may_be_changed_until_the_first_event_was_streamed(tmp_path: Path) -> None:
    settings = shop(tmp_path, observations=60)
    embedded(settings).close()
    run_to_the_end(under(settings, "outer.every=16"))


def test_damaged_settings_are_refused(settings: Settings) -> None:
    (settings.run.directory / "settings.json").write_bytes(b"{")
    with pytest.raises(StoreError, match=r"settings\.json is damaged"):
        embedded(settings)


class Kept:
    """A record in memory."""

    def __init__(self) -> None:
        self.settings: dict[str, Any] | None = None

    def read(self) -> dict[str, Any] | None:
        return self.settings

    def add(self, settings: Mapping[str, Any]) -> None:
        self.settings = {**settings, **(self.settings or {})}


def test_a_setting_of_a_later_version_joins_those_that_are_kept(settings: Settings) -> None:
    kept, now = Kept(), of_run(settings)
    agree(kept, {path: value for path, value in now.items() if path != "hedge.share"}, "rows", "")
    agree(kept, now, "rows", "")
    assert kept.settings == now


def test_rows_of_before_there_was_a_choice_of_precision_are_of_single(settings: Settings) -> None:
    path = settings.run.directory / "settings.json"
    kept = json.loads(path.read_bytes())
    path.write_text(json.dumps({name: v for name, v in kept.items() if name != "memory.precision"}))
    with pytest.raises(SettingsError, match=r'memory\.precision is "half" and was "single"'):
        rebuilt(under(settings, "memory.precision=half"))
    rebuilt(settings)


def test_in_half_precision_rows_are_the_same_bits_in_other_batches_and_made_anew(tmp_path: Path) -> None:
    half = ("memory.precision=half", "history.enabled=true")
    settings = under(shop(tmp_path, observations=120), *half)
    stop_after(settings, 5)
    whole = run_to_the_end(settings)
    rebuilt(under(settings, *half, "run.batch=7"))
    assert what_is_left(settings).differs(whole) == []
    uncut = run_to_the_end(under(settings, *half, "run.batch=500", "run.directory=uncut"))
    assert uncut.rows == whole.rows


def test_rows_of_a_deployment_hang_on_what_folds_them_and_not_on_what_trains_theta(
    settings: Settings,
) -> None:
    paths = of_rows(settings).keys()
    assert {
        "outer.every",
        "inner.lr",
        "memory.ttl_s",
        "policy.recent",
        "drift.options",
        "hedge.share",
    } <= paths
    assert not {"outer.lr", "outer.optimizer", "run.seed", "run.batch"} & paths

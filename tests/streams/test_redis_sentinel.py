"""Sentinels are asked who the master is: one after the other, with a password of their own, and never shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from streams.assembly.deployed import Deployment
from streams.errors import ReptideError, SettingsError, StoreError, Unavailable
from streams.settings.tree import Settings, load_settings
from streams.stores.redis.sentinels import Service
from streams.stores.redis.server import RedisServer
from tests.faults.shop import CONFIG
from tests.redis_servers import Watched
from tests.redis_users import OPERATIONS

PASSWORD, SENTINEL_PASSWORD = "hunter2-sesame", "hunter3-sesame"
NOWHERE = "127.0.0.1:1"


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A master with a user, under a Sentinel with a password of its own; not to be stopped."""
    watched = Watched(tmp_path_factory.mktemp("watched"), sentinel=[f"requirepass {SENTINEL_PASSWORD}"])
    watched.master.ask("ACL", "SETUSER", "ann", "on", f">{PASSWORD}", "~*", "+@all")
    yield watched
    watched.kill()


def connected(
    *sentinels: str,
    service: str = Watched.NAME,
    url: str = "redis:///0",
    password: str | None = SENTINEL_PASSWORD,
) -> RedisServer:
    return RedisServer(url, timeout_s=1.0, service=Service(service, sentinels, None, password))


def refused(server: RedisServer, kind: type[ReptideError]) -> str:
    with pytest.raises(kind) as raised:
        server.ask(("GET", "a"))
    assert PASSWORD not in str(raised.value)
    assert SENTINEL_PASSWORD not in str(raised.value)
    return str(raised.value)


def test_one_that_is_away_is_passed_over(watched: Watched) -> None:
    server = connected(NOWHERE, watched.sentinel.address)
    assert server.ask(("SET", "a", 1), ("GET", "a")) == [True, b"1"]


def test_the_user_of_the_url_is_the_masters_and_the_sentinels_have_one_of_their_own(watched: Watched) -> None:
    server = connected(watched.sentinel.address, url=f"redis://ann:{PASSWORD}@/1")
    assert server.ask(("ACL", "WHOAMI")) == [b"ann"]
    wrong = connected(watched.sentinel.address, url=f"redis://ann:{PASSWORD}x@/1")
    assert "user and password" in refused(wrong, StoreError)


@pytest.mark.parametrize("password", [None, "wrong"])
def test_a_sentinel_that_does_not_let_us_in_is_named_with_its_settings(
    watched: Watched, password: str | None
) -> None:
    said = refused(connected(watched.sentinel.address, password=password), StoreError)
    assert said.startswith(f"Sentinel at {watched.sentinel.address} does not let us in")
    assert "redis.sentinel_password" in said


def test_a_user_of_the_sentinel_needs_what_the_page_says(watched: Watched) -> None:
    (rules,) = re.findall(r"^```acl-sentinel\n(.*)\n```$", OPERATIONS, re.MULTILINE)
    with redis.Redis(port=watched.sentinel.port, password=SENTINEL_PASSWORD) as sentinel:
        sentinel.execute_command("ACL", "SETUSER", "ann", "on", f">{PASSWORD}", *rules.split())
    service = Service(watched.NAME, (watched.sentinel.address,), "ann", PASSWORD)
    assert RedisServer("redis:///0", service=service).ask(("GET", "nothing")) == [None]


def test_a_service_that_no_sentinel_knows_is_named(watched: Watched) -> None:
    server = connected(NOWHERE, watched.sentinel.address, service="shoe")
    assert "knows no service 'shoe'; name in redis.service" in refused(server, Unavailable)


def test_where_none_answers_all_are_named() -> None:
    said = refused(connected(NOWHERE, "127.0.0.1:2"), Unavailable)
    assert said.startswith(f"no Sentinel at {NOWHERE}, 127.0.0.1:2 answers")


def test_where_none_answers_any_more_the_master_is_gone_on_with(watched: Watched) -> None:
    server = connected(watched.sentinel.address)
    server.meet()
    watched.sentinel.kill()
    server.meet()
    assert server.ask(("GET", "nothing")) == [None]
    watched.sentinel.start()


def test_a_url_that_names_a_server_as_well_is_refused() -> None:
    with pytest.raises(StoreError, match=r"redis\.url names a server, which redis\.sentinels do as well"):
        connected(NOWHERE, url="redis://h:6379/0")


def settings(folder: Path, *redis: str) -> Settings:
    (folder / "shop.toml").write_text(CONFIG)
    return load_settings(folder / "shop.toml", {}, ("redis.url=redis:///0", *redis))


def test_settings_name_sentinels_and_what_they_watch(tmp_path: Path) -> None:
    given = settings(
        tmp_path, 'redis.sentinels=["s1", "s2:26380", "[::1]:26379"]', "redis.service=shop",
        f"redis.sentinel_password={PASSWORD}",
    )  # fmt: skip
    assert PASSWORD not in repr(given)
    server = Deployment(given).server
    assert server.address == "shop of Sentinel s1, s2:26380, [::1]:26379"


@pytest.mark.parametrize(
    "redis, said",
    [
        (['redis.sentinels=["s1"]'], "sentinels and service go together"),
        (["redis.service=shop"], "sentinels and service go together"),
        (
            ['redis.sentinels=["s1"]', "redis.service=shop", "redis.cluster=true"],
            "a cluster fails over by itself",
        ),
        (['redis.sentinels=["redis://s1:26379"]', "redis.service=shop"], r"redis\.sentinels"),
        (["redis.wait_replicas=-1"], r"redis\.wait_replicas"),
    ],
)
def test_what_would_have_no_effect_is_refused(tmp_path: Path, redis: list[str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        settings(tmp_path, *redis)

"""What a Redis does not let us do is one sentence: a login, a command, a key, a certificate; none holds a secret."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from streams.assembly.deployed import Deployment
from streams.cli.app import app
from streams.errors import ReptideError, SettingsError, StoreError, Unavailable
from streams.settings.tree import load_settings
from streams.stores.redis.server import RedisServer
from streams.testing import servers
from tests.faults.shop import CONFIG
from tests.redis_servers import QUICK_GOSSIP, Cluster, Server, one_redis, redis_cluster
from tests.tls import Authority, Certificate, TlsFront

__all__ = ["one_redis", "redis_cluster"]  # fixtures

SECRET = "hunter2-sesame"  # noqa: S105
SCRIPT = "return redis.call('SET', KEYS[1], redis.call('TTL', KEYS[1]))"
SEE = "(docs/operations.md has what each role needs)"


# Commands and keys


class Denied(NamedTuple):
    """What is asked, and what is said where it is not allowed; `{at}` is the server."""

    ask: Callable[[RedisServer], object]
    sentence: str


DENIED = {
    "a command": Denied(
        lambda server: server.ask(("GET", "reptide:shop:a"), ("HGET", "reptide:shop:a", "b")),
        "run HGET; allow it by `ACL SETUSER ann +hget`",
    ),
    "a command of a script": Denied(
        lambda server: server.ask(("EVAL", SCRIPT, 1, "reptide:shop:a")),
        "run a command of a script: SET, TTL; allow them by `ACL SETUSER ann +set +ttl`",
    ),
    "a key, which may name a task": Denied(
        lambda server: server.ask(("GET", "reptide:other:0:t:bob")),
        "use the keys reptide:other:*; allow them by `ACL SETUSER ann ~reptide:other:*`",
    ),
    "a key of a script": Denied(
        lambda server: server.ask(("EVAL", SCRIPT, 1, "reptide:other:0:t:bob")),
        "use the keys reptide:other:*; allow them by `ACL SETUSER ann ~reptide:other:*`",
    ),
    "to look through keys": Denied(
        lambda server: list(server.keys("reptide:*")), "run SCAN; allow it by `ACL SETUSER ann +scan`"
    ),
    "to ask every node": Denied(
        lambda server: server.each("PING"), "run PING; allow it by `ACL SETUSER ann +ping`"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["one_redis", "redis_cluster"])
@pytest.mark.parametrize("what", DENIED)
def test_what_an_acl_forbids_is_named_with_the_user_and_the_way_out(
    kind: str, what: str, request: pytest.FixtureRequest
) -> None:
    given: Server | Cluster = request.getfixturevalue(kind)
    for node in getattr(given, "nodes", [given]):
        node.ask(
            "ACL", "SETUSER", "ann", "reset", "on", f">{SECRET}", "~reptide:shop:*", "+get", "+eval", "+info",
            "+cluster", "+command",
        )  # fmt: skip
    server = RedisServer(given.url.replace("//", f"//ann:{SECRET}@"), cluster=kind == "redis_cluster")
    with pytest.raises(StoreError) as caught:
        DENIED[what].ask(server)
    server.close()
    assert (
        str(caught.value) == f"Redis at {server.address} does not let user ann {DENIED[what].sentence} {SEE}"
    )


@pytest.mark.parametrize("missing", ["+cluster|slots", "+command"])
def test_what_a_client_of_a_cluster_asks_itself_is_named_too(missing: str, redis_cluster: Cluster) -> None:
    rules = {"+get", "+cluster|slots", "+cluster|myid", "+command", "+info"} - {missing}
    for node in redis_cluster.nodes:
        node.ask("ACL", "SETUSER", "ann", "reset", "on", f">{SECRET}", "~*", *sorted(rules))
    server = RedisServer(redis_cluster.url.replace("//", f"//ann:{SECRET}@"), cluster=True)
    with pytest.raises(StoreError) as caught:
        server.ask(("GET", "a"))
    server.close()
    name = missing[1:].partition("|")[0].upper()
    assert f"{server.address} does not let user ann run {name}" in str(caught.value)


@pytest.mark.parametrize("kind", ["one_redis", "redis_cluster"])
@pytest.mark.parametrize("login", [f"ann:{SECRET}x", f"bob:{SECRET}"])
def test_a_login_that_is_refused_names_the_user(
    kind: str, login: str, request: pytest.FixtureRequest
) -> None:
    given: Server | Cluster = request.getfixturevalue(kind)
    for node in getattr(given, "nodes", [given]):
        node.ask("ACL", "SETUSER", "ann", "reset", "on", f">{SECRET}")
    server = RedisServer(given.url.replace("//", f"//{login}@"), cluster=kind == "redis_cluster")
    with pytest.raises(StoreError) as caught:
        server.ask(("GET", "a"))
    server.close()
    assert str(caught.value) == (
        f"Redis at {server.address} does not take the password of user {login[:3]}; check user and password in "
        "redis.url, and that the server has this user (`ACL LIST`)"
    )


# TLS


class Files(NamedTuple):
    """Whom servers and clients are trusted by, and what they show."""

    ours: Authority
    other: Authority
    server: Certificate
    elsewhere: Certificate
    client: Certificate
    stranger: Certificate
    locked: Certificate

    def url(self, port: int, **options: object) -> str:
        """With the options of a client that is trusted, but for those given; None leaves one out."""
        right = {
            "ssl_ca_certs": self.ours.certificate,
            "ssl_certfile": self.client.certificate,
            "ssl_keyfile": self.client.key,
        }
        told = {name: value for name, value in (right | options).items() if value is not None}
        return f"rediss://127.0.0.1:{port}/0?" + "&".join(f"{name}={value}" for name, value in told.items())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("authorities")
    ours, other = (Authority(folder / name) for name in ("ours", "other"))
    return Files(
        ours, other, ours.signed("redis", "IP:127.0.0.1"), ours.signed("elsewhere", "DNS:elsewhere"),
        ours.signed("client"), other.signed("stranger"), ours.signed("locked", password=SECRET),
    )  # fmt: skip


def tls_options(files: Files, shown: Certificate, port: int) -> list[str]:
    """Of a Redis that wants a certificate of its clients."""
    return [
        "--tls-port", str(port), "--tls-cert-file", str(shown.certificate), "--tls-key-file", str(shown.key),
        "--tls-ca-cert-file", str(files.ours.certificate), "--tls-auth-clients", "yes",
    ]  # fmt: skip


class TlsCluster(Cluster):
    """Three servers that share the slots, and want a certificate of their clients."""

    def __init__(self, directory: Path, files: Files) -> None:
        self.files = files
        self.tls_ports: list[int] = []
        super().__init__(directory)

    def _node(self, directory: Path) -> Server:
        port = servers.free_port(bus=True)
        tls = tls_options(self.files, self.files.server, port)
        node = Server(directory, "--cluster-enabled", "yes", *QUICK_GOSSIP, "--tls-cluster", "yes", *tls)
        node.bus_port = port + 10_000
        self.tls_ports.append(port)
        return node


@pytest.fixture(scope="module")
def behind_tls(
    tmp_path_factory: pytest.TempPathFactory, files: Files
) -> Iterator[Callable[[Certificate], int]]:
    """Starts servers that show a certificate, and gives their port: of a front where Redis was built without TLS."""
    with ExitStack() as running:
        ports: dict[Certificate, int] = {}

        def start(shown: Certificate) -> int:
            directory, port = tmp_path_factory.mktemp("tls"), servers.free_port()
            try:
                running.callback(Server(directory, *tls_options(files, shown, port)).kill)
            except ReptideError as error:
                if "tls-port" not in str(error):
                    raise
                front = running.enter_context(TlsFront(shown, clients=files.ours.certificate))
                server = Server(directory)
                running.callback(server.kill)
                front.behind, port = server.port, front.port
            return port

        yield lambda shown: ports[shown] if shown in ports else ports.setdefault(shown, start(shown))


@pytest.fixture
def tls_cluster(files: Files, tmp_path: Path) -> Iterator[TlsCluster]:
    try:
        cluster = TlsCluster(tmp_path, files)
    except ReptideError as error:
        pytest.skip(f"this Redis was built without TLS: {error}")
    yield cluster
    cluster.kill()


def said_of(url: str, kind: type[ReptideError], **options: Any) -> str:
    server = RedisServer(url, **options)
    with pytest.raises(kind) as caught:
        server.ask(("GET", "a"))
    server.close()
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestTls:
    @pytest.mark.parametrize("login", ["the client's", "one that a password opens"])
    def test_with_the_right_authority_and_a_certificate_of_its_own_a_client_is_let_in(
        self, login: str, files: Files, behind_tls: Callable[[Certificate], int]
    ) -> None:
        own: dict[str, object] = {}
        if login == "one that a password opens":
            own = {
                "ssl_certfile": files.locked.certificate,
                "ssl_keyfile": files.locked.key,
                "ssl_password": SECRET,
            }
        server = RedisServer(files.url(behind_tls(files.server), **own))
        assert server.ask(("SET", "a", "b"), ("GET", "a")) == [True, b"b"]
        server.close()

    def test_a_certificate_of_another_authority_is_not_trusted(
        self, files: Files, behind_tls: Callable[[Certificate], int]
    ) -> None:
        for authority in (files.other.certificate, None):
            port = behind_tls(files.server)
            said = said_of(files.url(port, ssl_ca_certs=authority), StoreError)
            assert said == (
                f"the certificate of Redis at 127.0.0.1:{port} is not trusted (self-signed certificate in "
                "certificate chain); name the authority that signed it in redis.url: rediss://...?ssl_ca_certs=FILE"
            )

    def test_a_certificate_of_another_host_is_trusted_only_where_its_name_does_not_matter(
        self, files: Files, behind_tls: Callable[[Certificate], int]
    ) -> None:
        port = behind_tls(files.elsewhere)
        said = said_of(files.url(port), StoreError)
        assert said.startswith(
            f"the certificate of Redis at 127.0.0.1:{port} is not trusted (IP address mismatch, certificate is not "
            "valid for '127.0.0.1'); name the host in redis.url as its certificate does"
        )
        server = RedisServer(files.url(port, ssl_check_hostname="false"))
        assert server.ask(("GET", "a")) == [None]
        server.close()

    @pytest.mark.parametrize("shown", ["none", "a stranger's"])
    def test_a_client_that_the_server_does_not_trust_is_told_which_options_to_look_at(
        self, shown: str, files: Files, behind_tls: Callable[[Certificate], int]
    ) -> None:
        own = dict(
            zip(
                ("ssl_certfile", "ssl_keyfile"),
                files.stranger if shown != "none" else (None, None),
                strict=True,
            )
        )
        said = said_of(files.url(behind_tls(files.server), **own), Unavailable)
        assert (
            "; where it asks for a certificate of ours, give one that it trusts by ssl_certfile and ssl_keyfile"
            in said
        )

    def test_a_server_that_speaks_tls_alone_or_none_at_all_is_told_apart_from_one_that_is_away(
        self, files: Files, behind_tls: Callable[[Certificate], int], one_redis: Server
    ) -> None:
        plainly = said_of(f"redis://127.0.0.1:{behind_tls(files.server)}/0", Unavailable)
        assert plainly.endswith("; where it speaks TLS alone, write rediss:// in redis.url")
        by_tls = said_of(files.url(one_redis.port), Unavailable, timeout_s=0.2)
        assert by_tls.endswith("; where it speaks no TLS, write redis:// in redis.url")

    def test_a_wrong_password_over_tls_is_told_as_ever(
        self, files: Files, behind_tls: Callable[[Certificate], int]
    ) -> None:
        url = files.url(behind_tls(files.server)).replace("//", f"//ann:{SECRET}@")
        assert "does not take the password of user ann" in said_of(url, StoreError)

    def test_a_cluster_is_reached_by_tls_at_every_node(self, files: Files, tls_cluster: TlsCluster) -> None:
        server = RedisServer(files.url(tls_cluster.tls_ports[0]), cluster=True)
        assert server.ask(*(("SET", f"k{n}", n) for n in range(20))) == [True] * 20
        assert all(node.ask("DBSIZE") for node in tls_cluster.nodes)
        server.close()
        wrong = files.url(tls_cluster.tls_ports[0], ssl_ca_certs=files.other.certificate)
        assert "is not trusted (self-signed certificate" in said_of(wrong, StoreError, cluster=True)

    def test_files_that_cannot_be_used_are_named_by_their_option_before_a_server_is_asked(
        self, files: Files
    ) -> None:
        client, locked = files.client, files.locked
        for options, sentence in (
            ({"ssl_ca_certs": f"/{SECRET}"}, "ssl_ca_certs: there is no such file"),
            ({"ssl_ca_certs": client.key}, "ssl_ca_certs: it holds no certificate in PEM that can be read"),
            ({"ssl_certfile": None}, "ssl_keyfile: it has no effect without ssl_certfile"),
            (
                {"ssl_keyfile": files.stranger.key},
                "ssl_keyfile: it holds another key than that of ssl_certfile",
            ),
            (
                {"ssl_keyfile": client.certificate},
                "ssl_certfile: it and ssl_keyfile hold no certificate and key in PEM",
            ),
            (
                {"ssl_certfile": locked.certificate, "ssl_keyfile": locked.key},
                "ssl_password: it is missing; the key in",
            ),
            (
                {"ssl_certfile": locked.certificate, "ssl_keyfile": locked.key, "ssl_password": SECRET + "x"},
                "ssl_password: it does not open the key in ssl_keyfile",
            ),
        ):
            with pytest.raises(SettingsError) as caught:
                RedisServer(files.url(1, **options))
            assert str(caught.value).startswith(f"redis.url: {sentence}")
            assert SECRET not in str(caught.value)


# Secrets


def test_a_password_is_in_no_log_traceback_repr_or_record(
    one_redis: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is wrong with it, and whoever writes about it: this program, the client library, the settings kept."""
    caplog.set_level(logging.DEBUG)
    one_redis.ask("ACL", "SETUSER", "ann", "reset", "on", f">{SECRET}", "~*", "+@all")
    where = one_redis.url.removeprefix("redis://")
    seen: list[str] = []
    for url in (
        f"redis://ann:{SECRET}@{where}", f"redis://bob:{SECRET}@{where}", f"redis://ann:{SECRET}@127.0.0.1:1/0",
        f"rediss://ann:{SECRET}@{where}?ssl_ca_certs=/{SECRET}", f"redis://ann:{SECRET}/@{where}", f"redis://ann:{SECRET}",
    ):  # fmt: skip
        config = tmp_path / "shop.toml"
        security = f'[kafka.security]\nsecurity_protocol = "SASL_SSL"\nsasl_plain_password = "{SECRET}"\n'
        config.write_text(
            f'{CONFIG}[kafka]\nbootstrap = ["127.0.0.1:1"]\n{security}[redis]\nurl = "{url}"\ntimeout_s = 0.2\n'
        )
        settings = load_settings(config, {})
        deployment = Deployment(settings)
        try:
            seen.append(str(deployment.versions.current()))
            deployment.keep_settings()
        except ReptideError as error:
            seen += traceback.format_exception(error)
        if "server" in vars(deployment):
            seen.append(repr(deployment.server))
        seen += [
            repr(settings),
            repr(deployment),
            CliRunner().invoke(app, ["show-config", str(config)]).output,
        ]
    kept = [one_redis.ask("DUMP", key) for key in one_redis.ask("KEYS", "*")]
    assert "sasl_plain_password" in "".join(seen)
    assert not [text for text in (*seen, caplog.text, repr(kept)) if SECRET in text]

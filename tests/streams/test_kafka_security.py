"""TLS, SASL and tokens: what the settings refuse, what the client libraries are given, and a broker behind TLS."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs

import orjson
import pytest
from confluent_kafka.admin import AdminClient
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.net.sasl.oauth import SaslMechanismOAuth

from streams.assembly.deployed import Deployment
from streams.errors import InputError, ReptideError, SettingsError, Unavailable
from streams.events.envelope import Envelope
from streams.logs.kafka.confluent import client as confluent_client
from streams.logs.kafka.group import Connection
from streams.logs.kafka.kafka_python import client as kafka_client
from streams.logs.kafka.security import KNOWN, OAUTH, PASSED, TLS_FILES, named
from streams.logs.kafka.tokens import Token, Tokens, tokens_of
from streams.settings.tree import load_settings
from streams.testing import servers
from tests.kafka_brokers import Broker, group_of, producer_of
from tests.tls import Authority, TlsFront

SECRET = "hunter2/and+more"  # noqa: S105
TLS = {"security_protocol": "SSL"}
LOGIN = {"sasl_plain_username": "ann", "sasl_plain_password": SECRET}
SASL = {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", **LOGIN}
OAUTHBEARER = {"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"}
CLIENT = {
    "sasl_oauth_token_endpoint": "https://id/t", "sasl_oauth_client_id": "ann", "sasl_oauth_client_secret": SECRET,
}  # fmt: skip


class TestSettings:
    @pytest.mark.parametrize(
        ("security", "sentence"),
        [
            ({"sasl_pasword": SECRET}, "sasl_pasword: there is no such setting; there are sasl_kerberos_"),
            ({"security_protocol": SECRET}, "security_protocol: must be one of PLAINTEXT, SSL, SASL_PLAINTEXT, "),
            (SASL | {"sasl_mechanism": SECRET}, "sasl_mechanism: must be one of PLAIN, SCRAM-SHA-256, "),
            (TLS | {"ssl_check_hostname": SECRET}, "ssl_check_hostname: must be one of true, false"),
            (TLS | {"ssl_cafile": f"/{SECRET}"}, "ssl_cafile: there is no such file"),
            (LOGIN, "sasl_plain_password: it has no effect unless security_protocol is SASL_SSL"),
            ({"ssl_check_hostname": "false"}, "ssl_check_hostname: it has no effect unless security_protocol is SAS"),
            ({"security_protocol": "SASL_SSL", **LOGIN}, "sasl_mechanism: it is missing; SASL needs sasl_mechanism"),
            (SASL | {"sasl_oauth_scope": SECRET}, "sasl_oauth_scope: it has no effect unless sasl_mechanism is OA"),
            (OAUTHBEARER, "sasl_oauth_token_endpoint: it is missing; OAUTHBEARER needs sasl_oauth_token_end"),
            (
                OAUTHBEARER | CLIENT | {"sasl_oauth_token_function": "a:b"},
                "sasl_oauth_client_id: give either this or sasl_oauth_token_function",
            ),
        ],
    )  # fmt: skip
    def test_what_a_client_would_leave_out_or_refuse_without_saying_why_is_refused(
        self, security: Mapping[str, str], sentence: str
    ) -> None:
        with pytest.raises(SettingsError) as caught:
            Connection("h:1", security)
        assert str(caught.value).startswith(f"kafka.security.{sentence}")
        assert SECRET not in str(caught.value)

    def test_yes_and_no_may_be_written_as_such(self, tmp_path: Path) -> None:
        config = tmp_path / "shop.toml"
        config.write_text(
            '[[features]]\nencoder = "numeric"\nname = "a"\n[target]\nclasses = [0, 1]\n'
            '[kafka]\nbootstrap = ["h:1"]\n[kafka.security]\nsecurity_protocol = "SSL"\nssl_check_hostname = false\n'
        )
        environment = {"REPTIDE_KAFKA__SECURITY__SSL_CHECK_HOSTNAME": "true"}
        for variables, checked in (({}, "false"), (environment, "true")):
            connection = Deployment(load_settings(config, variables)).connection
            assert connection.security["ssl_check_hostname"] == checked

    @pytest.mark.parametrize("checked", ["true", "false"])
    def test_each_client_is_told_whether_to_check_the_host_name(self, checked: str) -> None:
        connection = Connection("h:1", TLS | {"ssl_check_hostname": checked})
        assert kafka_client.common(connection)["ssl_check_hostname"] is (checked == "true")
        told = confluent_client.common(connection)["ssl.endpoint.identification.algorithm"]
        assert told == {"true": "https", "false": "none"}[checked]

    def test_every_setting_is_one_of_the_library_it_is_handed_to(self) -> None:
        for name, (kafka_python, confluent) in PASSED.items():
            for client in (KafkaAdminClient, KafkaConsumer, KafkaProducer):
                assert kafka_python is None or kafka_python in client.DEFAULT_CONFIG, name
            if confluent is not None and name not in (
                *TLS_FILES,
                "ssl_crlfile",
                "sasl_mechanism",
                "security_protocol",
            ):
                AdminClient({confluent: "none" if "endpoint" in confluent else "a"})

    def test_what_one_library_has_not_is_refused_by_the_other_that_has(self) -> None:
        with pytest.raises(
            SettingsError, match=r'ssl_ciphers: .*"kafka-python" has no such setting, "conflu'
        ):
            named({"ssl_ciphers": "a"}, 0)
        with pytest.raises(
            SettingsError, match=r'sasl_kerberos_name: .*"confluent" has no such setting, "kafka-py'
        ):
            named({"sasl_kerberos_name": "a"}, 1)

    def test_every_setting_is_documented(self) -> None:
        operations = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
        assert [name for name in sorted(KNOWN) if name not in operations] == []
        assert OAUTH < KNOWN


class Endpoint:
    """An identity provider's token endpoint, that answers as the test says and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes]] = []
        """Status and body; the last one stays."""
        self.asked: list[tuple[str | None, dict[str, list[str]]]] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = self.rfile.read(int(self.headers["Content-Length"])).decode()
                endpoint.asked.append((self.headers["Authorization"], parse_qs(form)))
                status, body = endpoint.answers.pop(0) if len(endpoint.answers) > 1 else endpoint.answers[0]
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", f"/elsewhere?{SECRET}")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/token"

    def security(self, **more: str) -> dict[str, str]:
        client = {
            "sasl_oauth_token_endpoint": self.url, "sasl_oauth_client_id": "ann", "sasl_oauth_client_secret": SECRET,
        }  # fmt: skip
        return {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "OAUTHBEARER", **client, **more}

    def tokens(self, **more: str) -> Tokens:
        tokens = tokens_of(self.security(**more))
        assert tokens is not None
        return tokens


def token(text: str, **more: object) -> tuple[int, bytes]:
    return 200, orjson.dumps({"access_token": text, "token_type": "Bearer", **more})


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    thread = Thread(target=partial(endpoint.server.serve_forever, poll_interval=0.01))
    thread.start()
    yield endpoint
    endpoint.server.shutdown()
    endpoint.server.server_close()
    thread.join()


class TestTokens:
    def test_an_endpoint_is_asked_as_the_standard_says(self, endpoint: Endpoint) -> None:
        endpoint.answers = [token("t1", expires_in=600)]
        tokens = endpoint.tokens(sasl_oauth_scope="kafka")
        assert tokens.current().text == tokens.current().text == "t1"
        [(login, form)] = endpoint.asked
        assert form == {"grant_type": ["client_credentials"], "scope": ["kafka"]}
        assert login is not None
        assert b64decode(login.removeprefix("Basic ")) == b"ann:hunter2%2Fand%2Bmore"

    def test_a_token_is_asked_for_again_before_it_expires_and_used_while_there_is_no_other(self) -> None:
        given: list[Token | ReptideError] = [
            Token("t1", 1100.0), Unavailable("away"), Token("t2", 1300.0), Unavailable("away"), Unavailable("away"),
        ]  # fmt: skip
        now = [1000.0]

        def fetch() -> Token:
            if isinstance(one := given.pop(0), ReptideError):
                raise one
            return one

        tokens = Tokens(fetch, {}, lambda: now[0])
        seen = []
        for now[0] in (1000.0, 1074.0, 1075.0, 1076.0, 1077.0, 1299.0):
            seen.append(tokens.current().text)
        assert (seen, tokens.failure) == (["t1", "t1", "t1", "t2", "t2", "t2"], None)
        now[0] = 1300.0
        with pytest.raises(Unavailable):
            tokens.current()
        assert isinstance(tokens.failure, Unavailable)

    @pytest.mark.parametrize(
        ("answer", "error", "sentence"),
        [
            ((401, b'{"error": "invalid_client"}'), InputError, "refuses the client (HTTP 401, invalid_client); ch"),
            ((400, f'{{"error": "{SECRET}"}}'.encode()), InputError, "refuses the client (HTTP 400); check sasl_oa"),
            ((403, b"<html>"), InputError, "refuses the client (HTTP 403); check sasl_oauth_client_id"),
            ((503, b""), Unavailable, "does not answer (HTTP 503)"),
            ((302, b""), Unavailable, "does not answer (HTTP 302)"),
            ((200, b"{}"), Unavailable, "answers without a token"),
            ((200, b"[1]"), Unavailable, "answers without a token"),
            ((200, b"<html>"), Unavailable, "answers without a token"),
        ],
    )  # fmt: skip
    def test_what_an_endpoint_refuses_or_does_not_say_becomes_a_sentence(
        self, endpoint: Endpoint, answer: tuple[int, bytes], error: type[ReptideError], sentence: str
    ) -> None:
        endpoint.answers = [answer]
        with pytest.raises(error) as caught:
            endpoint.tokens().current()
        assert str(caught.value).startswith(f"the token endpoint {endpoint.url} {sentence}")
        assert SECRET not in str(caught.value)
        assert len(endpoint.asked) == 1

    @pytest.mark.parametrize("library", ["kafka-python", "confluent"])
    def test_where_no_token_is_to_be_had_a_client_says_so_at_once(self, library: str) -> None:
        nowhere = f"http://127.0.0.1:1/token?{SECRET}"
        connection = Connection("127.0.0.1:1", OAUTHBEARER | CLIENT | {"sasl_oauth_token_endpoint": nowhere})
        connects: list[Callable[[], object]] = [
            lambda: group_of(library)(connection, "g", ["t"], Envelope()),
            lambda: producer_of(library)(connection, ["t"]),
        ]  # fmt: skip
        for connect in connects:
            with pytest.raises(Unavailable) as caught:
                connect()
            assert str(caught.value).startswith(
                "the token endpoint http://127.0.0.1:1/token does not answer ("
            )
            assert SECRET not in str(caught.value)

    def test_each_library_sends_the_token_and_what_belongs_to_it(self, endpoint: Endpoint) -> None:
        endpoint.answers = [token("t1", expires_in=600)]
        connection = Connection("h:1", endpoint.security(sasl_oauth_extensions="logicalCluster=l-1,poolId=p"))
        sent = SaslMechanismOAuth(**kafka_client.common(connection)).auth_bytes()
        assert sent == b"n,,\x01auth=Bearer t1\x01logicalCluster=l-1\x01poolId=p\x01\x01"
        settings = confluent_client.common(connection)
        text, expires_s, _, extensions = settings["oauth_cb"](None)
        assert extensions == {"logicalCluster": "l-1", "poolId": "p"}
        assert connection.tokens is not None
        assert connection.tokens.current() == (text, expires_s)
        AdminClient(settings)  # waits until librdkafka has taken the token
        assert len(endpoint.asked) == 1

    @pytest.mark.parametrize(
        ("name", "text"),
        [("tests.streams.test_kafka_security:signed", "signed by ann"), ("builtins:tuple", None)],
    )
    def test_a_function_may_make_the_tokens(self, name: str, text: str | None) -> None:
        tokens = tokens_of(OAUTHBEARER | {"sasl_oauth_token_function": name})
        assert tokens is not None
        if text is not None:
            assert tokens.current() == (text, 2e9)
        else:
            with pytest.raises(
                Unavailable, match=r"sasl_oauth_token_function: it gives no token \(ValueError\)"
            ):
                tokens.current()

    @pytest.mark.parametrize("name", ["nowhere:signed", "builtins", "builtins:nothing", "math:pi"])
    def test_a_function_that_is_none_is_refused(self, name: str) -> None:
        with pytest.raises(
            SettingsError, match=r"_token_function: (it cannot be imported|write `module:fun)"
        ):
            tokens_of(OAUTHBEARER | {"sasl_oauth_token_function": name})

    @pytest.mark.parametrize("url", ["file:///etc/passwd", "id/t", "https://", f"https://ann:{SECRET}@id/t"])
    def test_an_endpoint_is_an_http_address(self, url: str) -> None:
        with pytest.raises(SettingsError, match=r"sasl_oauth_token_endpoint: write https://HOST/PATH$"):
            tokens_of(OAUTHBEARER | CLIENT | {"sasl_oauth_token_endpoint": url})

    @pytest.mark.parametrize("extensions", ["a", "a=", "a1=b", "=b"])
    def test_extensions_that_cannot_be_read_are_refused(self, extensions: str) -> None:
        with pytest.raises(SettingsError, match="sasl_oauth_extensions: write name=value"):
            tokens_of(OAUTHBEARER | CLIENT | {"sasl_oauth_extensions": extensions})


def signed() -> tuple[str, float]:
    return "signed by ann", 2e9


@pytest.fixture(scope="module")
def behind_tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Broker, Path]]:
    """A broker whose certificate is of another host name, and who signed that."""
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder / "authority")
    with (
        TlsFront(authority.signed("kafka-1", "DNS:kafka-1")) as front,
        servers.tansu(folder / "broker", advertised=front.address) as server,
    ):
        front.behind = server.port
        yield Broker(front.address, server), authority.certificate


@pytest.mark.parametrize("library", ["kafka-python", "confluent"])
class TestTls:
    def security(self, certificate: Path, **more: str) -> dict[str, str]:
        return {"security_protocol": "SSL", "ssl_cafile": str(certificate), **more}

    def test_with_its_certificate_and_whatever_its_name_a_broker_is_read(
        self, library: str, behind_tls: tuple[Broker, Path]
    ) -> None:
        broker, certificate = behind_tls
        connection = Connection(broker.servers, self.security(certificate, ssl_check_hostname="false"))
        with pytest.raises(InputError, match="no topic nowhere"):
            producer_of(library)(connection, ["nowhere"])

    def test_a_certificate_of_another_host_name_is_not_trusted(
        self, library: str, behind_tls: tuple[Broker, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("streams.logs.kafka.kafka_python.client.BOOTSTRAP_MS", 500)
        monkeypatch.setattr("streams.logs.kafka.confluent.client.ANSWER_S", 0.5)
        broker, certificate = behind_tls
        with pytest.raises(
            InputError, match=r"is not trusted \(IP address mismatch, .*; name the brokers in kafka"
        ):
            producer_of(library)(Connection(broker.servers, self.security(certificate)), ["nowhere"])


# Tansu ends a login by SCRAM as kafka-python does not expect it; on Apache Kafka, `test_getting_in` has both clients.
def test_a_user_whom_the_brokers_do_not_know_is_told_from_brokers_that_are_away(
    asks_who_comes: Broker,
) -> None:
    login = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "SCRAM-SHA-512", **LOGIN}
    with pytest.raises(InputError, match="does not take the password of user ann by SCRAM-SHA-512") as caught:
        producer_of("confluent")(Connection(asks_who_comes.servers, login), ["nowhere"])
    assert SECRET not in str(caught.value)


@pytest.fixture(scope="module")
def asks_who_comes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that takes logins by SCRAM, and knows nobody."""
    with servers.tansu(tmp_path_factory.mktemp("sasl"), "--authentication") as server:
        yield Broker(server.address, server)

"""One Redis server, the master that Sentinels name, or a cluster.

Every command names one key, so that the same calls are right on any shard of Redis Cluster; the client
may send each of them twice. What goes wrong becomes a sentence that names the server and no password.

A server that was restarted may have forgotten its last seconds, and a replica that was promoted may never have had
them. A run id tells, and in a cluster a primary that was none before. Either is said once, as `Forgot`.

    reptide:confirm:N   written and waited for where replicas are to have everything: one key on each primary
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any

from redis import Redis, RedisCluster
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.connection import ConnectionPool
from redis.exceptions import (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    AuthorizationError,
    ConnectionError,
    MovedError,
    NoPermissionError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TimeoutError,
)
from redis.retry import Retry

from streams.errors import Forgot, ReptideError, StoreError, Unavailable
from streams.stores.redis_access import Access, check_tls
from streams.stores.redis_sentinels import Sentinels, Service

RETRIES = 1
"""A connection that the server closed while it was idle is noticed only when it is used."""
SCANNED_AT_ONCE = 1000
MARK, MARKED_S = "reptide:confirm:", 60
LOGIN_REFUSED = (AuthenticationError, AuthenticationWrongNumberOfArgsError, AuthorizationError)
DENIED_IN_SCRIPT = "user executing the script can't run"

PASSING = {
    "OutOfMemoryError|OOM command": "is full: it has reached `maxmemory`, which may be raised by "
    "`CONFIG SET maxmemory`, and nothing that it refused was written",
    "BusyLoadingError": "is still loading its data; wait until it has",
    "ReadOnlyError|READONLY": "is a replica, which takes no writes; wait for the failover, or name the primary",
    "MISCONF": "cannot save to its own disk and takes no writes; its log says why",
    "NOREPLICAS": "has too few replicas and takes no writes; bring them back",
    "ClusterDown|MasterDown|SlotNotCovered|cannot be connected": "misses a part of its cluster; "
    "bring the missing nodes back",
    "MovedError|AskError|TryAgain|ClusterError": "is moving slots between its nodes; wait until it has",
    "BUSY": "is busy with a script; wait, or end it by `SCRIPT KILL`",
}
"""States that end without a change to the program, by what the client calls them or the server says."""


class _AnotherRun(RedisError):
    """Stays in this module. No ConnectionError, which the client would try again."""


class _AnotherPrimary(RedisError):
    """Stays in this module: names primaries that were none before."""


class _TooFewReplicas(RedisError):
    """Stays in this module: names how many there are."""


class RedisServer:
    """A server; with `cluster`, the cluster that it is a node of; with `service`, the master that Sentinels name.

    Connects when it is first asked.

    Args:
        url: redis://USER:PASSWORD@HOST:PORT/DB, or rediss:// for TLS; with `service` without host and port.
        cluster: whether it is a node of Redis Cluster.
        timeout_s: how long one answer may take.
        wait_replicas: how many replicas must have everything before `confirm` returns.
        service: what Sentinels are asked for.

    """

    def __init__(
        self,
        url: str,
        cluster: bool = False,
        timeout_s: float = 5.0,
        wait_replicas: int = 0,
        service: Service | None = None,
    ) -> None:
        self.cluster, self.timeout_s, self._url = cluster, timeout_s, url
        self.wait_replicas = wait_replicas
        self._client: Any = None
        self._runs: dict[str, str] = {}  # by node id (of a single server: address), of every server met
        self._restarted = False  # whether that is still to be said: the client swallows it in places
        self._primaries: frozenset[str] = frozenset()  # addresses, as last seen
        self._nodes: list[
            tuple[str, int]
        ] = []  # the same, replicas too: where to ask for a cluster besides the URL
        try:
            pool = ConnectionPool.from_url(url)
            pool.make_connection()  # not opened: refuses an option that there is not
        except (ValueError, TypeError):
            raise StoreError(  # without the cause: it may quote a part of the password
                "the URL of Redis cannot be read; write redis://USER:PASSWORD@HOST:PORT/0, rediss:// for TLS, "
                "with special characters of the password percent-encoded"
            ) from None
        told = pool.connection_kwargs
        check_tls(told)
        self.address = told.get("path") or f"{told.get('host', 'localhost')}:{told.get('port', 6379)}"
        self._sentinels = Sentinels(service, pool) if service else None
        self._master: tuple[str, int] | None = None  # as Sentinels named it when we connected
        if service:
            self.address = str(service)
            if told.keys() & {"host", "port", "path"}:
                raise StoreError(
                    "redis.url names a server, which redis.sentinels do as well; leave it out of the URL: "
                    "redis://USER:PASSWORD@/0"
                )
        self._access = Access(self.address, told.get("username") or "default", url.startswith("rediss"))

    def ask(self, *commands: tuple[Any, ...]) -> list[Any]:
        """The replies to commands on one key each, in one round trip to every node concerned.

        Raises:
            Unavailable: not now; all of the commands may be asked again.
            StoreError: not at all.
        """
        with self._in_words() as client, client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command, **self._route(client, command))
            replies: list[Any] = pipeline.execute(raise_on_error=False)  # raised, it would quote a command
            for command, reply in zip(commands, replies, strict=True):
                if isinstance(reply, Exception):
                    raise self._denied(reply, command) or reply
            return replies

    def keys(self, pattern: str) -> Iterator[str]:
        """The keys of all nodes that match, in no order."""
        with self._in_words() as client:
            seen: set[bytes] = set()  # a table that is resized meanwhile gives keys twice
            for key in client.scan_iter(match=pattern, count=SCANNED_AT_ONCE):
                if key not in seen:
                    seen.add(key)
                    yield key.decode()

    def each(self, *command: str) -> list[Any]:
        """The reply of every primary."""
        with self._in_words() as client:
            return self._of_each(client, command)

    def each_if_allowed(self, *command: str) -> list[Any]:
        """The reply of every primary to a command that a managed server may forbid; none where it does."""
        with self._in_words() as client:
            try:
                return self._of_each(client, command)
            except ResponseError:
                return []

    def meet(self) -> None:
        """Raise `Unavailable` unless every primary answers; `Forgot` where another has taken its place."""
        self._leave_a_deposed_master()
        with self._in_words() as client:
            self._of_each(client, ("PING",))

    def confirm(self) -> None:
        """Return once `wait_replicas` replicas of every primary have all that it was told by now, whoever told it.

        Raises:
            Unavailable: they have not within half of `timeout_s`: a connection waits longer for an answer.

        """
        if not self.wait_replicas:
            return
        self._leave_a_deposed_master()
        within_ms = int(self.timeout_s * 1000 / 2)
        with self._in_words() as client:
            for one, mark in self._marked(client):
                with one.pipeline(transaction=False) as pipeline:
                    # Redis 7.2 waits for what this connection wrote, and so for all that others wrote before.
                    pipeline.execute_command("SET", mark, 1, "EX", MARKED_S)
                    pipeline.execute_command("WAIT", self.wait_replicas, within_ms)
                    _, replicas = pipeline.execute()
                if replicas < self.wait_replicas:
                    raise _TooFewReplicas(replicas)

    def close(self) -> None:
        """Close the connections; asked again, it connects again."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _leave_a_deposed_master(self) -> None:
        """Ask Sentinel who is the master: one that stood still and woke up takes it for itself, for some seconds."""
        if self._sentinels is None or self._client is None:
            return
        with suppress(Unavailable):  # no news: the master may be well
            if self._sentinels.master() != self._master:
                self.close()

    def _marked(self, client: Any) -> Iterator[tuple[Any, str]]:
        """Every primary, and a key that lies there."""
        if not self.cluster:
            yield client, f"{MARK}0"
            return
        left = {node.name for node in client.get_primaries()}
        for n in count():
            if not left:
                return
            node = client.get_node_from_key(f"{MARK}{n}")
            if node.name in left:
                left.remove(node.name)
                yield client.get_redis_connection(node), f"{MARK}{n}"

    def _of_each(self, client: Any, command: tuple[str, ...]) -> list[Any]:
        if not self.cluster:
            return [client.execute_command(*command)]
        return [client.execute_command(*command, target_nodes=node) for node in client.get_primaries()]

    def _route(self, client: Any, command: tuple[Any, ...]) -> dict[str, Any]:
        """The node of a command's key: left to itself, the client asks a server for the key of each EVAL."""
        if not self.cluster:
            return {}
        return {"target_nodes": client.get_node_from_key(command[3 if command[0] == "EVAL" else 1])}

    @contextmanager
    def _in_words(self) -> Iterator[Any]:
        try:
            yield self._opened()
            self._see_who_answered()
        except (RedisError, RedisClusterException) as error:
            if self.cluster or self._sentinels:
                self.close()  # it would ask only the nodes met last, all of which may be elsewhere by now
            raise self._sentence(_behind(error)) from error

    def _opened(self) -> Any:
        if self._client is None:
            kind: Any = RedisCluster if self.cluster else Redis
            self._client = kind.from_url(
                self._url,
                socket_timeout=self.timeout_s,
                socket_connect_timeout=self.timeout_s,
                retry=Retry(NoBackoff(), RETRIES),
                redis_connect_func=self._meet,
                **self._where(),
            )
        return self._client

    def _where(self) -> dict[str, Any]:
        """What the URL does not say."""
        if self._sentinels:
            self._master = self._sentinels.master()
            return dict(zip(("host", "port"), self._master, strict=True))
        if self.cluster:
            return {"startup_nodes": [ClusterNode(*node) for node in self._nodes]}  # type: ignore[no-untyped-call]
        return {}

    def _meet(self, connection: Any) -> None:
        """Open a connection; refuse it once where the server is not the process that it was, wherever it is now.

        A server that ends closes its connections, so nothing is ever asked of a restarted one before this.
        Where INFO is forbidden, that cannot be seen.
        """
        if not self.cluster:
            connection.on_connect()
        node = self._name(connection)
        connection.send_command("INFO", "server")
        run = f"{getattr(connection, 'host', '')}:{getattr(connection, 'port', '')}"
        with suppress(ResponseError):
            run = re.findall(r"run_id:(\w+)", str(connection.read_response()))[0]
        before, self._runs[node] = self._runs.get(node, run), run
        if run != before:
            self._restarted = True
            raise _AnotherRun

    def _name(self, connection: Any) -> str:
        """What a server is known by: the id of a node, which stays when it is restarted at another address."""
        if not self.cluster:
            return self.address
        connection.send_command("CLUSTER", "MYID")
        with suppress(ResponseError):
            return str(connection.read_response())
        return f"{connection.host}:{connection.port}"

    def _see_who_answered(self) -> None:
        """Refuse replies, once, that may be of a server that forgot: their commands are to be asked again.

        A replica that is promoted keeps its connections, and the client may follow to it unasked.
        """
        if not self.cluster or self._client is None:
            return
        before = self._primaries
        self._primaries = frozenset(node.name for node in self._client.get_primaries())
        self._nodes = [(node.host, node.port) for node in self._client.get_nodes()]
        if self._restarted:
            raise _AnotherRun
        if before and (others := self._primaries - before):
            raise _AnotherPrimary(", ".join(sorted(others)))

    def _denied(self, error: BaseException, command: tuple[Any, ...] = ()) -> StoreError | None:
        """Of a command that an ACL forbids; None where it was something else."""
        if isinstance(error, NoPermissionError) or DENIED_IN_SCRIPT in str(error):
            return StoreError(self._access.denied(str(error), command))
        return None

    def _sentence(self, error: BaseException) -> ReptideError:
        if isinstance(error, _AnotherRun):
            self._restarted, self._primaries = False, frozenset()
            failed_over = "has another master, or its master " * bool(self._sentinels)
            return Forgot(
                f"Redis at {self.address} {failed_over}was restarted and may have forgotten its last seconds"
            )
        if isinstance(error, _AnotherPrimary):
            return Forgot(
                f"Redis Cluster of {self.address} has another primary, {error}, which may lack the last seconds"
            )
        if isinstance(error, _TooFewReplicas):
            return Unavailable(
                f"Redis at {self.address} has everything on {error} of the {self.wait_replicas} replicas that "
                f"redis.wait_replicas asks for, after {self.timeout_s / 2:g} s; bring replicas back, or lower it: "
                "nothing is committed before, and nothing is lost"
            )
        told = re.split(", with args", f"{type(error).__name__}: {error}")[0]  # what follows quotes a row
        if denied := self._denied(error):
            return denied
        if isinstance(error, LOGIN_REFUSED):
            return StoreError(self._access.login_refused)
        if untrusted := self._access.untrusted(told):
            return StoreError(untrusted)
        if isinstance(error, MovedError) and not self.cluster:
            return StoreError(f"Redis at {self.address} is a node of a cluster; set `cluster` to true")
        if "Cluster mode is not enabled" in told:
            return StoreError(f"Redis at {self.address} is no node of a cluster; set `cluster` to false")
        for state, words in PASSING.items():
            if re.search(state, told):
                return Unavailable(f"Redis at {self.address} {words}")
        if isinstance(error, ConnectionError | TimeoutError | OSError):
            return Unavailable(
                f"Redis at {self.address} does not answer ({error}); bring it back, nothing is lost"
                f"{self._access.doubt(told)}"
            )
        return StoreError(
            f"Redis at {self.address} refuses a command ({told:.200}); check its version and ACL"
        )


def _behind(error: BaseException) -> BaseException:
    """What made the client of a cluster give up, which takes a node that forbids `CLUSTER SLOTS` for one without."""
    cause = error.__cause__ if isinstance(error, RedisClusterException) else None
    asked = cause and cause.__context__
    return asked if isinstance(asked, NoPermissionError) else cause or error

"""One Redis server, the master that Sentinels name, or a cluster.

No command names more than `keys_at_once` keys, one on Redis Cluster, so that the same calls are right on any shard;
the client may send each of them twice. What goes wrong becomes a sentence that names the server and no password.

A server that was restarted may have forgotten its last seconds, and a replica that was promoted may never have had
them. A run id tells, and in a cluster a primary that was none before. Either is said once, as `Forgot`.

    reptide:confirm:N   written and waited for where replicas are to have everything: one key on each primary
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from redis import Redis, RedisCluster
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.connection import ConnectionPool
from redis.exceptions import (
    NoPermissionError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.retry import Retry

from streams.errors import ReptideError, StoreError, Unavailable
from streams.stores.redis.access import Access, check_tls
from streams.stores.redis.errors import AnotherPrimary, AnotherRun, SlotsMove, TooFewReplicas, Words, behind
from streams.stores.redis.primaries import MARKED_S, marked, of_each, route, slots_of
from streams.stores.redis.protocol import CommandPacker
from streams.stores.redis.sentinels import Sentinels, Service

RETRIES = 1
"""A connection that the server closed while it was idle is noticed only when it is used."""
SCANNED_AT_ONCE = 1000
KEYS_AT_ONCE = 16
"""Of rows in one command, which Redis serves nobody else meanwhile; more make it no cheaper."""


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
        self.keys_at_once = 1 if cluster else KEYS_AT_ONCE
        self._client: Any = None
        self._runs: dict[str, str] = {}  # by node id (of a single server: address), of every server met
        self._histories: frozenset[str] = frozenset()  # ids of what is replicated, as last seen
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
        access = Access(self.address, told.get("username") or "default", url.startswith("rediss"))
        self._words = Words(self.address, cluster, access)

    def ask(self, *commands: tuple[Any, ...]) -> list[Any]:
        """The replies to commands on at most `keys_at_once` keys each, in one round trip to every node concerned.

        Raises:
            Unavailable: not now; all of the commands may be asked again.
            StoreError: not at all.
        """
        with self._in_words() as client:
            routes = [route(client, command) for command in commands] if self.cluster else None
            return self._asked(client, commands, routes)

    def keys(self, pattern: str) -> Iterator[str]:
        """The keys of all nodes that match, in no order.

        Raises:
            Unavailable: slots moved meanwhile, so that a key may have been passed over; ask again.
        """
        with self._in_words() as client:
            before = slots_of(client)
            seen: set[bytes] = set()  # a table that is resized meanwhile gives keys twice
            for key in client.scan_iter(match=pattern, count=SCANNED_AT_ONCE):
                if key not in seen:
                    seen.add(key)
                    yield key.decode()
            if slots_of(client) != before:
                raise SlotsMove

    def each(self, *command: str) -> list[Any]:
        """The reply of every primary."""
        with self._in_words() as client:
            return of_each(client, command)

    def each_if_allowed(self, *command: str) -> list[Any]:
        """The reply of every primary to a command that a managed server may forbid; none where it does."""
        with self._in_words() as client:
            try:
                return of_each(client, command)
            except ResponseError:
                return []

    def meet(self) -> None:
        """Raise `Unavailable` unless every primary answers and is one; `Forgot` where one has another history."""
        self._leave_a_deposed_master()
        with self._in_words() as client:
            try:
                told = of_each(client, ("INFO", "replication"))
            except NoPermissionError:
                told = []
                of_each(client, ("PING",))
            if any(one["role"] != "master" for one in told):
                raise ReadOnlyError("it was deposed")
            self._see_whose_history(frozenset(one["master_replid"] for one in told))

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
            for one, mark in marked(client):
                # Redis 7.2 waits for what this connection wrote, and so for all that others wrote before.
                wait = ("SET", mark, 1, "EX", MARKED_S), ("WAIT", self.wait_replicas, within_ms)
                _, replicas = self._asked(one, wait)
                if replicas < self.wait_replicas:
                    raise TooFewReplicas(
                        f"{replicas} of the {self.wait_replicas} replicas that redis.wait_replicas asks for, after "
                        f"{self.timeout_s / 2:g} s"
                    )

    def close(self) -> None:
        """Close the connections; asked again, it connects again."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _asked(
        self, client: Any, commands: Sequence[tuple[Any, ...]], routes: Sequence[dict[str, Any]] | None = None
    ) -> list[Any]:
        """The replies to commands in one round trip, each sent where its route says."""
        with client.pipeline(transaction=False) as pipeline:
            for command, route in zip(commands, routes or [{}] * len(commands), strict=True):
                pipeline.execute_command(*command, **route)
            replies: list[Any] = pipeline.execute(raise_on_error=False)  # raised, it would quote a command
        for command, reply in zip(commands, replies, strict=True):
            if isinstance(reply, Exception):
                raise self._words.denied(reply, command) or reply
        return replies

    def _leave_a_deposed_master(self) -> None:
        """Ask Sentinel who is the master: one that stood still and woke up takes it for itself, for some seconds."""
        if self._sentinels is None or self._client is None:
            return
        with suppress(Unavailable):  # no news: the master may be well
            if self._sentinels.master() != self._master:
                self.close()

    @contextmanager
    def _in_words(self) -> Iterator[Any]:
        try:
            yield self._opened()
            self._see_who_answered()
        except (RedisError, RedisClusterException) as error:
            if self.cluster or self._sentinels:
                self.close()  # it would ask only the nodes met last, all of which may be elsewhere by now
            raise self._said(behind(error)) from error

    def _opened(self) -> Any:
        if self._client is None:
            kind: Any = RedisCluster if self.cluster else Redis
            self._client = kind.from_url(
                self._url,
                socket_timeout=self.timeout_s,
                socket_connect_timeout=self.timeout_s,
                retry=Retry(NoBackoff(), RETRIES),
                redis_connect_func=self._meet,
                **self._options(),
            )
        return self._client

    def _options(self) -> dict[str, Any]:
        """What the URL does not say: where to connect, and how a command is packed."""
        if self.cluster:  # whose client takes no packer
            return {"startup_nodes": [ClusterNode(*node) for node in self._nodes]}  # type: ignore[no-untyped-call]
        options: dict[str, Any] = {"command_packer": CommandPacker()}
        if self._sentinels:
            self._master = self._sentinels.master()
            options |= zip(("host", "port"), self._master, strict=True)
        return options

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
            raise AnotherRun

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
            raise AnotherRun
        if before and (others := self._primaries - before):
            raise AnotherPrimary(", ".join(sorted(others)))

    def _see_whose_history(self, histories: frozenset[str]) -> None:
        """Refuse a history that was none before: of a promoted server, even one that was the master before that."""
        before, self._histories = self._histories, histories
        if before and histories - before:
            raise AnotherRun

    def _said(self, error: BaseException) -> ReptideError:
        """What went wrong in words; of another history only once."""
        if isinstance(error, AnotherRun | AnotherPrimary):
            self._histories = frozenset()
        if isinstance(error, AnotherRun):
            self._restarted, self._primaries = False, frozenset()
        return self._words.sentence(error)

"""One Redis server, or a cluster of them: the only module that imports the client library.

Every command names one key, so that the same calls are right on any shard of Redis Cluster; the client
may send each of them twice. What goes wrong becomes a sentence that names the server and no password.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from redis import Redis, RedisCluster
from redis.backoff import NoBackoff
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

RETRIES = 1
"""A connection that the server closed while it was idle is noticed only when it is used."""
SCANNED_AT_ONCE = 1000
NOT_ALLOWED = (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    AuthorizationError,
    NoPermissionError,
)

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


class RedisServer:
    """A server or, with `cluster`, the cluster that it is a node of. Connects when it is first asked."""

    def __init__(self, url: str, cluster: bool = False, timeout_s: float = 5.0) -> None:
        self.cluster, self.timeout_s, self._url = cluster, timeout_s, url
        self._client: Any = None
        self._runs: dict[str, str] = {}  # by address, of every node met
        try:
            pool = ConnectionPool.from_url(url)
            pool.make_connection()  # not opened: refuses an option that there is not
        except (ValueError, TypeError):
            raise StoreError(  # without the cause: it may quote a part of the password
                "the URL of Redis cannot be read; write redis://USER:PASSWORD@HOST:PORT/0, rediss:// for TLS, "
                "with special characters of the password percent-encoded"
            ) from None
        told = pool.connection_kwargs
        self.address = told.get("path") or f"{told.get('host', 'localhost')}:{told.get('port', 6379)}"

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
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
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

    def close(self) -> None:
        """Close the connections; asked again, it connects again."""
        if self._client is not None:
            self._client.close()
            self._client = None

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
        except RedisClusterException as error:
            raise self._sentence(error.__cause__ or error) from error
        except RedisError as error:
            raise self._sentence(error) from error

    def _opened(self) -> Any:
        if self._client is None:
            kind: Any = RedisCluster if self.cluster else Redis
            self._client = kind.from_url(
                self._url,
                socket_timeout=self.timeout_s,
                socket_connect_timeout=self.timeout_s,
                retry=Retry(NoBackoff(), RETRIES),
                redis_connect_func=self._meet,
            )
        return self._client

    def _meet(self, connection: Any) -> None:
        """Open a connection; refuse it once where the server is not the process that it was.

        A server that ends closes its connections, so nothing is ever asked of a restarted one before this.
        Where INFO is forbidden, that cannot be seen.
        """
        if not self.cluster:
            connection.on_connect()
        connection.send_command("INFO", "server")
        with suppress(ResponseError):
            run = re.findall(r"run_id:(\w+)", str(connection.read_response()))[0]
            node = f"{connection.host}:{connection.port}" if self.cluster else self.address
            before, self._runs[node] = self._runs.get(node, run), run
            if run != before:
                raise _AnotherRun

    def _sentence(self, error: BaseException) -> ReptideError:
        if isinstance(error, _AnotherRun):
            return Forgot(f"Redis at {self.address} was restarted and may have forgotten its last seconds")
        told = f"{type(error).__name__}: {error}"
        if isinstance(error, NOT_ALLOWED):
            return StoreError(
                f"Redis at {self.address} does not let us in; check user and password in the URL, and their ACL"
            )
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
            )
        return StoreError(
            f"Redis at {self.address} refuses a command ({told:.200}); check its version and ACL"
        )

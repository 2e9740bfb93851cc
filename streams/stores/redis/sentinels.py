"""The Sentinels of a Redis that fails over: who is asked which server is the master now.

Redis' guide for clients of Sentinel: ask one after the other, whoever answers first is believed and asked first the
next time, and ask again after every lost connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from redis import Redis
from redis.backoff import NoBackoff
from redis.connection import ConnectionPool
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.retry import Retry

from streams.errors import ReptideError, StoreError, Unavailable

PORT = 26_379
ANSWERS_S = 1.0
"""A Sentinel that takes longer is passed over: it has nothing else to do."""
OF_THE_MASTER = {"host", "port", "username", "password", "db"}
"""What the URL says of the master and is no business of a Sentinel's."""


class Service(NamedTuple):
    """What Sentinels watch, under the name that they know it by."""

    name: str
    sentinels: tuple[str, ...]
    """As host or host:port."""
    user: str | None = None
    password: str | None = None
    """To the Sentinels."""

    def __str__(self) -> str:
        return f"{self.name} of Sentinel {', '.join(self.sentinels)}"


class Sentinels:
    """The Sentinels of one service; `pool` is one of connections to its master, whose TLS is theirs too."""

    def __init__(self, service: Service, pool: ConnectionPool) -> None:
        self._service = service
        kept = {name: value for name, value in pool.connection_kwargs.items() if name not in OF_THE_MASTER}
        options: Mapping[str, Any] = kept | {
            "username": service.user,
            "password": service.password,
            "socket_timeout": ANSWERS_S,
            "socket_connect_timeout": ANSWERS_S,
            "retry": Retry(NoBackoff(), 1),
        }
        self._clients = [
            Redis(connection_pool=ConnectionPool(pool.connection_class, host=host, port=port, **options))
            for host, port in map(_apart, service.sentinels)
        ]

    def master(self) -> tuple[str, int]:
        """Host and port of the master.

        Raises:
            Unavailable: no Sentinel answers, or none knows the service.
            StoreError: they do not let us in.

        """
        failures: list[RedisError] = []
        for client in list(self._clients):
            try:
                told: Any = client.execute_command(  # type: ignore[no-untyped-call]
                    "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service.name
                )
            except RedisError as error:
                failures.append(error)
                continue
            if told:
                self._clients.remove(client)
                self._clients.insert(0, client)
                host, port = (part.decode() if isinstance(part, bytes) else part for part in told)
                return str(host), int(port)
        raise self._sentence(failures)

    def close(self) -> None:
        """Close the connections; asked again, they connect again."""
        for client in self._clients:
            client.close()

    def _sentence(self, failures: list[RedisError]) -> ReptideError:
        addresses = ", ".join(self._service.sentinels)
        if any(isinstance(one, AuthenticationError | ResponseError) for one in failures):
            return StoreError(
                f"Sentinel at {addresses} does not let us in; check redis.sentinel_user and "
                "redis.sentinel_password, and that user's ACL"
            )
        if len(failures) < len(self._clients):
            return Unavailable(
                f"Sentinel at {addresses} knows no service {self._service.name!r}; name in redis.service what "
                "`sentinel monitor` names"
            )
        return Unavailable(
            f"no Sentinel at {addresses} answers ({failures[0]}); bring one back, nothing is lost"
        )


def _apart(address: str) -> tuple[str, int]:
    """Host and port of `host`, `host:port` or `[v6]:port`."""
    host, colon, port = address.rpartition(":")
    if not colon or address.endswith("]"):
        return address.strip("[]"), PORT
    return host.strip("[]"), int(port)

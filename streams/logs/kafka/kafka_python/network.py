"""How kafka-python connects, watched: where all brokers refuse us for good, its clients say so at once.

Left alone, kafka-python 3.0 knocks until its time is over, and says that it is. (What it remembers
of refused logins, it forgets when the attempt has ended.)
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from kafka.net.compat import KafkaNetClient
from kafka.net.connection import KafkaConnection
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

ENDED = ("socket disconnected", "EOF", "reset by peer", "Broken pipe")
"""What is said of a connection that was there."""

logging.getLogger("kafka").setLevel(logging.INFO)  # below it, kafka-python logs every request, a login's too


class Watched(KafkaConnectionManager):  # type: ignore[misc]
    """Notes why connections to the brokers that we begin with failed; raises it where it was `final` of each."""

    def __init__(self, final: Callable[[Exception], bool], net: NetworkSelector, **configs: Any) -> None:
        self._final = final
        self.failures: dict[str, Exception] = {}
        self._refused = False
        super().__init__(net, **configs)
        # Who asks for a topic that was deleted is not to make it again. The clients' own setting is never looked at.
        self.cluster.config["allow_auto_create_topics"] = False

    def get_connection(self, node_id: Any, *arguments: Any, **options: Any) -> KafkaConnection:
        """A connection; of a broker that we begin with, it is seen what becomes of it."""
        begins = self.cluster.is_bootstrap(node_id)
        if begins and self._refused:
            raise self.failures[node_id]
        connection = super().get_connection(node_id, *arguments, **options)
        if begins:
            connection.init_future.add_errback(partial(self._note, node_id))
        return connection

    async def _build_transport(self, *arguments: Any, **options: Any) -> Any:
        """Work around a fault of kafka-python 3.0: it drops what a broker says last, as why it refuses a login."""
        transport = await super()._build_transport(*arguments, **options)
        transport._sock_recv = partial(_what_came_first, transport._sock_recv)  # noqa: SLF001
        return transport

    def _note(self, node_id: str, error: Exception) -> None:
        self.failures[node_id] = error
        nodes = [broker.node_id for broker in self.cluster.bootstrap_brokers()]
        self._refused = all(node in self.failures and self._final(self.failures[node]) for node in nodes)

    @property
    def ended_by_brokers(self) -> bool:
        """Whether a broker took a connection, and ended it or never answered."""
        said = [str(error) for error in self.failures.values()]
        return not said or any(word in text for word in ENDED for text in said)


def _what_came_first(receive: Callable[[], tuple[bytes, Any]]) -> tuple[bytes, Any]:
    """Hand out what came before the end; the next call finds that again."""
    content, error = receive()
    return content, None if content else error


def network(final: Callable[[Exception], bool], **configs: Any) -> KafkaNetClient:
    """What kafka-python would open itself, and would not give out."""
    net = NetworkSelector(**configs)
    return KafkaNetClient(net, Watched(final, net, **configs), **configs)

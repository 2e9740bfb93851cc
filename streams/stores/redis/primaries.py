"""The primaries that a client of Redis speaks to: one server, or those of a cluster, each with its slots."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

from redis import RedisCluster

from streams.stores.redis.errors import SlotsMove

MARK, MARKED_S = "reptide:confirm:", 60


def is_cluster(client: Any) -> bool:
    """Whether a client speaks to a cluster."""
    return isinstance(client, RedisCluster)


def marked(client: Any) -> Iterator[tuple[Any, str]]:
    """Every primary, and a key that lies there."""
    if not is_cluster(client):
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


def of_each(client: Any, command: tuple[str, ...]) -> list[Any]:
    """The reply of every primary."""
    if not is_cluster(client):
        return [client.execute_command(*command)]
    return [client.execute_command(*command, target_nodes=node) for node in client.get_primaries()]


def slots_of(client: Any) -> list[list[str]]:
    """Which slots each primary has.

    Raises:
        SlotsMove: some are on their way.

    """
    if not is_cluster(client):
        return []
    told = [_own_slots(nodes) for nodes in of_each(client, ("CLUSTER", "NODES"))]
    if any(slot.startswith("[") for _, *slots in told for slot in slots):
        raise SlotsMove
    return sorted(told)


def route(client: Any, command: tuple[Any, ...]) -> dict[str, Any]:
    """The node of a cluster that has a command's key: left to itself, the client asks for the key of each EVAL."""
    return {"target_nodes": client.get_node_from_key(command[3 if command[0] == "EVAL" else 1])}


def _own_slots(nodes: bytes | str) -> list[str]:
    """The id of the node that `CLUSTER NODES` was asked of, and its slots; one on its way in or out as [slot-...]."""
    lines = (nodes if isinstance(nodes, str) else nodes.decode()).splitlines()
    own = next(words for words in map(str.split, lines) if "myself" in words[2])
    return [own[0], *own[8:]]

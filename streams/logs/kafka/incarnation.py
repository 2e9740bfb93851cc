"""Which topic of its name one is: made anew, it is another, whatever its partitions and offsets.

Rows keep the number (`engine.stream.sources`), and so do outputs, adoptions and checkpoints.
"""

from __future__ import annotations

from hashlib import blake2b


def incarnation(topic: str, topic_id: bytes | None) -> int:
    """63 bits from a topic's id. Of a broker without ids, from its name: a topic created anew then looks the same."""
    return int.from_bytes(blake2b(topic_id or topic.encode(), digest_size=8).digest(), "little") >> 1

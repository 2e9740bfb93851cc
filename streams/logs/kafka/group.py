"""What the log asks of a Kafka client library: to be one member of a consumer group, and no more."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple, Protocol

from streams.events.record import Offsets, Place, Record, incarnation_text
from streams.logs.kafka.security import check
from streams.logs.kafka.tokens import Tokens, tokens_of

CLIENT_ID = "reptide"
"""What all of our clients call themselves: brokers may set quotas by it, and log it."""
POLL_INTERVAL_S = 300.0
"""A member that fetches nothing for so long leaves the group, though its heart beats."""


@dataclass(frozen=True)
class Connection:
    """Where the brokers are and how to get in. What `security` holds is never shown."""

    servers: str
    """host:port, several separated by commas."""
    security: Mapping[str, str] = field(default_factory=dict, repr=False)
    """As in `[kafka.security]`; yes and no are "true" and "false"."""

    def __post_init__(self) -> None:
        check(self.security)

    @property
    def protocol(self) -> str:
        """How the brokers are spoken to."""
        return self.security.get("security_protocol", "PLAINTEXT")

    @property
    def principal(self) -> str:
        """As whom the brokers know us, in words."""
        if self.protocol.startswith("SASL"):
            return f"user {self.security.get('sasl_plain_username') or 'of our token'}"
        return "the name in our certificate" if "ssl_certfile" in self.security else "who is not logged in"

    @cached_property
    def tokens(self) -> Tokens | None:
        """What all of its clients log in with, where that is OAUTHBEARER."""
        return tokens_of(self.security)


class OffsetOutOfRange(Exception):
    """Stays between a `GroupClient` and `KafkaLog`: the log does not hold the offset to read next.

    `cut`: what it held below that offset is gone too, or is something else.
    """

    def __init__(self, place: Place, offset: int, cut: bool = False) -> None:
        self.place = place
        self.offset = offset
        self.cut = cut


class Fetched(NamedTuple):
    """What one call to the client brought."""

    revoked: Collection[Place]
    """Taken away since the last call, also where they were given back at once."""
    records: Mapping[Place, Sequence[Record]]
    refused: Offsets = MappingProxyType({})
    """What was to be committed before and the group did not take, as in the middle of a rebalance."""
    shared: bool = False
    """Whether the group has shared its partitions anew since the last call, even where that changed nothing here."""


class InputTopic(NamedTuple):
    """What the brokers say of an input topic."""

    partitions: int
    incarnation: int
    """63 bits: another number where the topic was created anew."""


class GroupClient(Protocol):
    """A member of a consumer group, as a client library provides it.

    A partition without a commit starts at its earliest record. Every method may raise `Unavailable`.
    """

    def fetch(self, max_records: int, timeout_s: float) -> Fetched:
        """At most that many next records, with heartbeats and rebalances; `OffsetOutOfRange` where there is none."""
        ...

    def assigned(self) -> frozenset[Place]:
        """What this member reads."""
        ...

    def topics(self) -> tuple[InputTopic, ...]:
        """Each input topic as it is now; asks the broker. `InputError` where one is gone."""
        ...

    def position(self, place: Place) -> int | None:
        """The offset to fetch next, where it is known."""
        ...

    def highwater(self, place: Place) -> int | None:
        """The end of the log as the last fetch told it."""
        ...

    def start(self, place: Place) -> int:
        """The first offset of the log; asks the broker."""
        ...

    def end(self, places: Collection[Place]) -> Mapping[Place, int]:
        """The end of the log now; asks the broker."""
        ...

    def seek(self, place: Place, offset: int) -> None:
        """Fetch from here on."""
        ...

    def pause(self, places: Collection[Place]) -> None:
        """Fetch nothing of these places, as far as they are assigned."""
        ...

    def resume(self, places: Collection[Place]) -> None:
        """Fetch again from where it was paused."""
        ...

    def commit(self, offsets: Offsets) -> None:
        """Keep the offsets with the group; where it has moved on without this member, a fetch tells of it."""
        ...

    def close(self) -> None:
        """Leave the group."""
        ...


def origin(topic: str, record: Record, incarnation: int) -> str:
    """Where a record comes from; its first word is the topic, which `redrive` sends it back to."""
    of = incarnation_text(incarnation)
    return f"{topic} partition {record.partition} offset {record.offset} of incarnation {of}"

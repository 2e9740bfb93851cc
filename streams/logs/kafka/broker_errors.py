"""What brokers answer instead of what was asked for, by the error codes of Kafka's protocol.

One table for both client libraries, so that what ends a process with one of them ends it with the other.

Apache Kafka, https://kafka.apache.org/protocol#protocol_error_codes.
"""

from __future__ import annotations

from streams.errors import InputError, ReptideError
from streams.logs.kafka import refusals
from streams.logs.kafka.group import Connection

LOGIN = {58}
NO_LOGIN = {33, 34}
TOPIC_DENIED, GROUP_DENIED = {29}, {30}
CLUSTER_DENIED = {31, 53, 65}
UNKNOWN_TOPIC = {3}
TOO_LARGE = {10, 18}
AWAY = {
    -1, 5, 6, 7, 8, 9, 11, 13, 14, 15, 16, 19, 20, 41, 51, 56, 70, 71, 72, 74, 75, 77, 78, 80, 83, 84, 88, 89,
    100, 103, 106, 108, 122, 123,
}  # fmt: skip
"""A broker that is away, comes back, is asked for too much at once, or has just handed its partitions, a group or a
topic to another."""
UNSEQUENCED = {45, 46, 47, 49, 59}
"""A broker that does not know what this producer sent before: another producer sends it again."""
MOVED_ON = {22, 25, 27, 79, 110, 113}
"""The group went on without this member; the next fetch joins it again."""
PASSING = AWAY | UNSEQUENCED | MOVED_ON
NEWEST = 127
"""Codes beyond it are not known here, and may pass."""

WAY_OUT = {
    2: "what it holds is damaged: see the disk of the partition's leader",
    17: "a topic's name is of at most 249 letters, digits, dots, hyphens and underscores",
    23: "its members are assigned partitions in another way: give all workers the same kafka.inputs, or ours another "
    "kafka.group",
    26: "set kafka.session_timeout_s to what group.min.session.timeout.ms and group.max.session.timeout.ms allow",
    32: "the clock of this machine and the brokers' are further apart than message.timestamp.after.max.ms or "
    "message.timestamp.before.max.ms allows: set it right, or have brokers stamp messages "
    "(message.timestamp.type=LogAppendTime)",
    35: "the brokers are older than what this client asks of them: Apache Kafka 2.8 or newer is needed",
    76: "allow lz4 by compression.type of the topic",
    81: "there are as many members as group.max.size allows",
    82: "another worker has joined under our kafka.group_instance_id: give each worker one of its own, or leave it "
    "out",
    111: "another worker is in the group under our kafka.group_instance_id, or was until its session ends: give each "
    "worker one of its own, or leave it out",
    112: "its brokers were told to know no such assignor: see their group.consumer.assignors",
    87: "outputs must be in topics that are not compacted: set cleanup.policy=delete",
    90: "another producer has taken our transactional.id",
}
"""What mends an error that lasts, by its code."""


def of_code(
    code: int, name: str, connection: Connection, subject: str, operation: str = "Describe", topics: str = ""
) -> ReptideError:
    """An error of the protocol as one of ours; arguments are those of `in_our_words`, and the client's name of it."""
    if code in LOGIN:
        return refusals.of_login(connection)
    if code in NO_LOGIN:
        return refusals.of_mechanism(connection)
    if code in GROUP_DENIED:
        return refusals.denied(connection, "Read", subject)
    if code in TOPIC_DENIED:
        return refusals.denied(connection, operation, f"topic {topics or subject}")
    if code in CLUSTER_DENIED:
        return refusals.denied_on_cluster(connection, operation)
    if code in UNKNOWN_TOPIC:
        return InputError(f"{connection.servers}: no topic {subject}; `reptide topics create` creates it")
    if code in TOO_LARGE:
        return InputError(
            f"{connection.servers}: a message for {subject} is larger than its limit: raise max.message.bytes of "
            "the topic (`reptide topics check` compares it)"
        )
    if code in PASSING or code > NEWEST:
        return refusals.away(connection, subject, name, closed=False)
    return refused(connection, subject, name, WAY_OUT.get(code, "see what the brokers' log says of it"))


def refused(connection: Connection, subject: str, name: str, way_out: str) -> InputError:
    """What is refused for good, by the client's name of it, and what mends it."""
    return InputError(f"{connection.servers} refuses {subject} ({name}): {way_out}")


def cut(connection: Connection, subject: str) -> InputError:
    """What was read up to here is no longer what the log holds."""
    return InputError(
        f"{connection.servers}: {subject}: the log is no longer the one that was read up to here: the topic was "
        "created anew, or cut when a broker that lacked its end became leader"
    )

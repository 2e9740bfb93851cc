"""A member of a group in a process of its own, which the test kills: it prints what it reads, and commits it."""

from __future__ import annotations

import sys

from streams.events.envelope import Envelope
from streams.logs.kafka.group import Connection
from streams.logs.kafka.log import KafkaLog
from tests.kafka_brokers import group_of


def main(servers: str, library: str, topic: str) -> None:
    client = group_of(library)(Connection(servers), f"of {topic}", [topic], Envelope(), 6.0, 1.0)
    log = KafkaLog(client, [topic], durability_lag_s=0.0)
    while True:
        for part in log.poll(100, 0.1):
            for record in part.records:
                print(part.partition, record.offset, flush=True)  # noqa: T201
            log.commit(part.after())


if __name__ == "__main__":
    main(*sys.argv[1:])

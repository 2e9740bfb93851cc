"""`reptide redrive`: dead letters, repaired by whoever found out what was wrong with them, sent back.

Each keeps its key, and so comes to lie in the partition of its task; but for one that was refused as
`wrong_partition`, and one without a key, whose key is now the task that its value names.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import IO, Any

import orjson

from streams.errors import InputError
from streams.events.identity import identity_of
from streams.logs.kafka.outputs import KafkaOutputs, Sent
from streams.program.set_aside import WRONG_PARTITION


def redrive(letters: IO[bytes], inputs: Sequence[str], producer: KafkaOutputs, keyed: bool = True) -> int:
    """Send letters, one JSON object a line as `reptide tail dead-letter` prints them; returns how many.

    Keys are left as they are where they are not the tasks' ids (`keyed` false).

    The file is read twice, a line at a time: nothing is sent unless every line can be read.

    Raises:
        InputError: a line is no dead letter; names it.

    """
    count = sum(1 for _ in _each(letters, inputs, keyed))
    letters.seek(0)
    for topic, together in groupby(_each(letters, inputs, keyed), key=itemgetter(0)):
        producer.send(topic, (message for _, message in together))
    producer.sync()
    return count


def _each(letters: IO[bytes], inputs: Sequence[str], keyed: bool) -> Iterator[tuple[str, Sent]]:
    return (_read(line, number, inputs, keyed) for number, line in enumerate(letters, 1) if line.strip())


def _read(line: bytes, number: int, inputs: Sequence[str], keyed: bool) -> tuple[str, Sent]:
    try:
        said: dict[str, Any] = orjson.loads(line)
        topic = said["origin"].split()[0]
        headers = [(name, text.encode()) for name, text in said["headers"]]
        message = Sent(_bytes(said, "key"), _bytes(said, "value"), headers)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(
            f"line {number} is no dead letter as `reptide tail dead-letter` prints it ({error})"
        ) from None
    if topic not in inputs:
        raise InputError(
            f"line {number} came from {topic}, which is no input of this stream ({', '.join(inputs)})"
        )
    return topic, _keyed(message, said.get("reason")) if keyed else message


def _keyed(message: Sent, reason: Any) -> Sent:
    """A message with the task as its key, where its own brought it to the wrong partition."""
    if message.key is not None and reason != WRONG_PARTITION:
        return message
    try:
        task = identity_of(orjson.loads(message.value or b"")["task"])
    except (ValueError, KeyError, TypeError):
        return message
    return message._replace(key=task.encode()) if task else message


def _bytes(said: dict[str, Any], name: str) -> bytes | None:
    if f"{name}_base64" in said:
        return b64decode(said[f"{name}_base64"])
    text: str | None = said[name]
    return None if text is None else text.encode()

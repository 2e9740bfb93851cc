"""`reptide tail`: an output topic as lines; a dead letter as one JSON object that can be repaired and sent back."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping
from threading import Event
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from streams.logs.kafka.reader import KafkaTopicReader, Message

AT_ONCE = 1000
POLL_S = 0.2


def tail(reader: KafkaTopicReader, letters: bool, whole: bool, stopping: Event) -> Iterator[bytes]:
    """Lines of an output: those that come from now on or, `whole`, those that are there."""
    try:
        end = reader.end()
        positions: Mapping[int, int] = {} if whole else end
        while not stopping.is_set():
            messages, after = reader.read(positions, AT_ONCE, POLL_S)
            for message in messages:
                yield letter(message) if letters else message.value or b""
            positions = after
            if whole and not messages and all(after.get(p, 0) >= at for p, at in end.items()):
                return
    finally:
        reader.close()


def letter(message: Message) -> bytes:
    """A dead letter as JSON; bytes that are not UTF-8 are given in base64, as `value_base64`."""
    headers = [(name, _text(value)) for name, value in message.headers]
    said: dict[str, Any] = {
        name.removeprefix("reptide_"): value for name, value in headers if name.startswith("reptide_")
    }
    said["headers"] = [list(pair) for pair in headers if not pair[0].startswith("reptide_")]
    for name, content in (("key", message.key), ("value", message.value)):
        if content is None or _is_text(content):
            said[name] = None if content is None else content.decode()
        else:
            said[f"{name}_base64"] = b64encode(content).decode()
    return orjson.dumps(said)


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _text(value: bytes | None) -> str:
    return (value or b"").decode(errors="backslashreplace")

"""Dead letters sent back: all or none of a file, of any size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import Any

import orjson
import pytest

from streams.errors import InputError
from streams.logs.kafka.outputs import Sent
from streams.operate.redrive import redrive

INPUTS = ("events", "labels")


def letter(topic: str, value: str) -> bytes:
    said = {"origin": f"{topic} partition 0 offset 1", "headers": [], "key": "k", "value": value}
    return orjson.dumps(said) + b"\n"


class Letters(BytesIO):
    """A file that counts the lines read of it since its beginning."""

    lines = 0

    def seek(self, *arguments: Any) -> int:
        self.lines = 0
        return super().seek(*arguments)

    def __next__(self) -> bytes:
        line = super().__next__()
        self.lines += 1
        return line


class Producer:
    """Takes messages one by one, and sees how far ahead of them the file was read."""

    def __init__(self, letters: Letters) -> None:
        self.letters, self.ahead, self.synced = letters, 0, False
        self.sent: list[tuple[str, bytes | None]] = []

    def send(self, topic: str, messages: Iterable[Sent]) -> None:
        for message in messages:
            self.sent.append((topic, message.value))
            self.ahead = max(self.ahead, self.letters.lines - len(self.sent))

    def sync(self) -> None:
        self.synced = True


def many() -> Iterator[tuple[str, bytes]]:
    return (("labels" if n % 7 == 0 else "events", b"%d" % n) for n in range(1000))


def test_letters_go_back_to_their_topics_in_order_and_none_is_kept() -> None:
    letters = Letters(b"".join(letter(topic, value.decode()) for topic, value in many()))
    producer: Any = Producer(letters)
    assert redrive(letters, INPUTS, producer) == 1000
    assert producer.sent == list(many())
    assert producer.ahead <= 1
    assert producer.synced


@pytest.mark.parametrize("line", [b"{}", b"no json", letter("elsewhere", "x")])
def test_where_a_line_cannot_be_sent_none_is(line: bytes) -> None:
    letters = Letters(letter("events", "1") + b"\n" + line)
    producer: Any = Producer(letters)
    with pytest.raises(InputError, match="line 3 "):
        redrive(letters, INPUTS, producer)
    assert producer.sent == []

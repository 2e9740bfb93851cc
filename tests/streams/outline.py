"""The outline of a page: what a reader of its HTML would see, and whether it is well formed."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

from streams.pages.kit.markup import Markup


class Outline(HTMLParser):
    """Checks that every element is closed in order; keeps text and attributes."""

    def __init__(self, text: str | Markup) -> None:
        super().__init__(convert_charrefs=True)
        self.open, self.seen, self.text, self.attributes = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: Any, attrs: Any) -> None:
        self.seen.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: Any) -> None:
        assert self.open.pop() == tag

    def handle_data(self, text: Any) -> None:
        self.text.append((self.open[-1] if self.open else "", text))

    def within(self, tag: str) -> list[Any]:
        return [text for parent, text in self.text if parent == tag]

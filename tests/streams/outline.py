"""The outline of a page: what a reader of its HTML would see, and whether it is well formed."""

from __future__ import annotations

from html.parser import HTMLParser

from streams.pages.kit.markup import Markup


class Outline(HTMLParser):
    """Checks that every element is closed in order; keeps text and attributes."""

    def __init__(self, text: str | Markup) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.seen: list[str] = []
        self.text: list[tuple[str, str]] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append((self.open[-1] if self.open else "", data))

    def within(self, tag: str) -> list[str]:
        return [text for parent, text in self.text if parent == tag]

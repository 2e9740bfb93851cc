"""HTML and SVG as values that are safe by construction: text is escaped unless it is already `Markup`."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape


class Markup(str):
    """Text that is HTML already. Only this module makes one from text."""

    __slots__ = ()


def element(tag: str, *children: str, **attributes: str | float) -> Markup:
    """One element; children that are not `Markup` are escaped, and so are all attributes.

    An attribute's trailing underscore is dropped and others become hyphens: `class_`, `text_anchor`.

    >>> element("td", "a < b", class_="task")
    '<td class="task">a &lt; b</td>'
    """
    named = "".join(f' {_name(key)}="{_value(value)}"' for key, value in attributes.items())
    return Markup(f"<{tag}{named}>{join(children)}</{tag}>")


def join(parts: Iterable[str]) -> Markup:
    """Parts side by side; those that are not `Markup` are escaped."""
    return Markup("".join(part if isinstance(part, Markup) else escape(part) for part in parts))


def page(title: str, style: str, body: Markup) -> str:
    """Return a whole document that fetches nothing; `style` is trusted."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = (
        '<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"{element('title', title)}\n<style>\n{style}</style>"
    )
    return f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n'


def _name(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _value(value: str | float) -> str:
    return escape(value) if isinstance(value, str) else f"{value:.6g}"

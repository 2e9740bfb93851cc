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


def _name(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _value(value: str | float) -> str:
    return escape(value) if isinstance(value, str) else f"{value:.6g}"

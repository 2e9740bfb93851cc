"""What every page is laid out by: the document around it, its sections and its tables."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from streams.pages.kit.markup import Markup, element


def page(title: str, *content: Markup, style: str = "") -> str:
    """Return a whole document that fetches nothing; `style`, beside that of every page, is trusted."""
    style = files("streams.pages.kit").joinpath("page.css").read_text(encoding="utf-8") + style
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = (
        '<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"{element('title', f'{title} · Reptide')}\n<style>\n{style}</style>"
    )
    body = element("main", *content)
    return f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n'


def section(title: str, *content: str) -> Markup:
    """A titled section; nothing where all of its content is empty."""
    if not any(content):
        return Markup()
    return element("section", element("h2", title), *content)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], texts: int) -> Markup:
    """A table whose first `texts` columns are text and whose others are numbers."""
    kinds = ["text" if i < texts else "number" for i in range(len(heads))]
    head = element(
        "tr", *(element("th", h, class_=k, scope="col") for h, k in zip(heads, kinds, strict=True))
    )
    body = [
        element("tr", *(element("td", cell, class_=k) for cell, k in zip(row, kinds, strict=True)))
        for row in rows
    ]
    return element("div", element("table", element("thead", head), element("tbody", *body)), class_="scroll")

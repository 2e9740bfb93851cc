"""What an episodic evaluation found, as a page and a table: `write_page(path, page)`, `table(evaluation)`."""

from streams.pages.episodic.contents import EpisodicPage
from streams.pages.episodic.page import render, write_page
from streams.pages.episodic.terminal import table

__all__ = ["EpisodicPage", "render", "table", "write_page"]

"""What an episodic evaluation found, as a page and a table: `write_page(path, page)`, `table(evaluation)`."""

from streams.episodic.contents import EpisodicPage
from streams.episodic.page import render, write_page
from streams.episodic.terminal import table

__all__ = ["EpisodicPage", "render", "table", "write_page"]

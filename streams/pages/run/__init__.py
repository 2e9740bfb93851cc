"""The page of a run, drawn from plain dicts: `write_report(path, report)`."""

from streams.pages.run.contents import RunReport
from streams.pages.run.page import render, write_report

PAGE = "report.html"
"""Its name, in the directory of a run."""

__all__ = ["PAGE", "RunReport", "render", "write_report"]

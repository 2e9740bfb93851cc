"""The page of a run, drawn from plain dicts: `write_report(path, report)`."""

from streams.report.contents import RunReport
from streams.report.page import render, write_report

__all__ = ["RunReport", "render", "write_report"]

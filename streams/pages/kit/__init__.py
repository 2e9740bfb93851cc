"""What pages are drawn with: markup, charts, axes of dates, and phrases."""

"""Snapshots: what a stream has learned and how far it has read its log, as a folder of files that can be restored."""

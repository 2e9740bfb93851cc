"""Benchmarks: one file a question; each prints a table with the machine and writes flat figures as JSON."""

"""Servers of one's own, for tests, benchmarks and the demonstration."""

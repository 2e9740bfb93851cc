"""Honest evaluation, of a stream and of episodes."""

"""Kafka by kafka-python; each workaround, and the test that fails without it, is listed in docs/architecture.md."""

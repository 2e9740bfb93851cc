"""What every test shares: one thread, which equal bits are promised on, and the same examples every run."""

import streams  # noqa: F401, I001 - first: sets what equal bits need of the environment
import signal
from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, settings

from engine.traced import Recorded
from tests.recordings import shared_among

torch.set_num_threads(1)
# Started by `&`, tests ignore Ctrl-C, and so would the processes that they interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile(
    "reptide",
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("reptide")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with tests that take minutes come first: of two processes none is left alone with them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("long")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True, scope="session")
def recordings_are_shared() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Recorded, "__init__", shared_among({}))
        yield

"""The broker with a listener for each way in, for all modules here that need it: it takes seconds to start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.apache.secured import Secured, secured


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """Started once."""
    with secured(tmp_path_factory.mktemp("secured")) as started:
        yield started

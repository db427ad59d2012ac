"""What tests of several rooms share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from process_pair import ProcessPair


@pytest.fixture(scope="session")
def pair() -> Iterator[ProcessPair]:
    """Two processes that meet as a world; started once for all tests."""
    processes = ProcessPair()
    yield processes
    processes.close()

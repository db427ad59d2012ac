"""What tests of several rooms share."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from process_pair import ProcessPair


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """Ctrl-C works in the tests even where a script in the background started them with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def pair() -> Iterator[ProcessPair]:
    """Two processes that meet as a world; started once for all tests."""
    processes = ProcessPair()
    yield processes
    processes.close()

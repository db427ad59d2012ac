"""Run folders that the report's tests share; they are read, never changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_run import make_run


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "dfn-demo")


@pytest.fixture(scope="session")
def other_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("others") / "dfn-plain", seed=3, skill=0.5)


@pytest.fixture
def own_run(tmp_path: Path) -> Path:
    """A small run that a test may damage."""
    return make_run(tmp_path / "small", images=2)

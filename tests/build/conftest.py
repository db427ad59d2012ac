"""One data set and one finished run, shared by the tests that only look at them."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_runs import small_config, write_blocks

from perpixel.build import RunResult, train


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five training and three validation images of three classes."""
    return write_blocks(tmp_path_factory.mktemp("blocks"))


@pytest.fixture(scope="session")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A finished run of `small_config`, report included; look, don't touch."""
    return train(small_config(data), out=tmp_path_factory.mktemp("runs") / "small")


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the report out, half of the time of a tiny run."""
    monkeypatch.setattr("perpixel.build.run_job.write_report", lambda run: run)

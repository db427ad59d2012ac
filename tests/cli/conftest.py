"""A command line run inside the test's own process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cli_fakes import Done

from perpixel.cli import main


@pytest.fixture
def run_cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """Runs ``perpixel`` with the given tokens in an empty folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE", "PERPIXEL_REFERENCE"):
        monkeypatch.delenv(name, raising=False)

    def run(*tokens: object) -> Done:
        capsys.readouterr()
        code = main([str(token) for token in tokens])
        captured = capsys.readouterr()
        return Done(code=code, out=captured.out, err=captured.err)

    return run

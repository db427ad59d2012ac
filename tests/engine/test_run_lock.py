"""One process at a time in a run folder."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from perpixel.engine.run_lock import LOCK_FILE, run_lock
from perpixel.errors import RunError


def holding(folder: Path) -> tuple[int, int]:
    """Starts a child that holds the lock until it is killed; returns its id and a pipe that told when it had it."""
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with run_lock(folder, make=True):
                os.write(tell, b"x")
                signal.pause()
        finally:
            os._exit(1)
    os.close(tell)
    assert os.read(ready, 1) == b"x"
    return child, ready


def test_lock_of_another_process_is_refused_and_ends_with_it(tmp_path: Path) -> None:
    child, ready = holding(tmp_path / "run")
    try:
        held = rf"in use by process {child} on .*; wait for it or stop it, then resume"
        with pytest.raises(RunError, match=held), run_lock(tmp_path / "run", make=True):
            pass
        assert (tmp_path / "run" / LOCK_FILE).exists()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
    with run_lock(tmp_path / "run", make=True) as before:
        assert before is not None and before.startswith(f"process {child} on ")
        assert json.loads((tmp_path / "run" / LOCK_FILE).read_text())["pid"] == os.getpid()


def test_lock_that_was_given_back_leaves_nothing(tmp_path: Path) -> None:
    with run_lock(tmp_path / "run", make=True) as before:
        assert before is None
    assert list((tmp_path / "run").iterdir()) == []
    with pytest.raises(KeyboardInterrupt), run_lock(tmp_path / "run", make=True):
        raise KeyboardInterrupt
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize("content", ["", "[]", "{", '{"pid": 1}'])
def test_lock_file_that_says_nothing_is_taken_over_silently(tmp_path: Path, content: str) -> None:
    (tmp_path / LOCK_FILE).write_text(content)
    with run_lock(tmp_path, make=False) as before:
        assert before is None


def test_lock_makes_no_folder_where_none_is_wanted(tmp_path: Path) -> None:
    with run_lock(tmp_path / "absent", make=False) as before:
        assert before is None
    assert not (tmp_path / "absent").exists()
    (tmp_path / "file").touch()
    with run_lock(tmp_path / "file", make=True):
        assert (tmp_path / "file").is_file()


def test_lock_in_a_folder_that_refuses_is_a_run_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> int:
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(os, "open", refuse)
    refused = r"cannot write .*\.lock: Read-only file system; mend the folder"
    with pytest.raises(RunError, match=refused), run_lock(tmp_path, make=True):
        pass


def test_lock_without_locks_in_the_file_system_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoLocks:
        LOCK_EX = LOCK_NB = 0

        @staticmethod
        def lockf(descriptor: int, how: int) -> None:
            raise OSError(37, os.strerror(37))

    monkeypatch.setattr("perpixel.engine.run_lock._fcntl", NoLocks)
    with run_lock(tmp_path, make=True) as before:
        assert before is None
    monkeypatch.setattr("perpixel.engine.run_lock._fcntl", None)
    with run_lock(tmp_path, make=True) as before:
        assert before is None

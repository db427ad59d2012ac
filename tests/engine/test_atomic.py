"""Files and folders are all there or not there, at whatever system call the program dies."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from perpixel.engine.atomic import new_folder, remove_folder, remove_leftovers, write_bytes
from perpixel.engine.checkpoints import latest_checkpoint, list_checkpoints, load_checkpoint, save_checkpoint

_CALLS = ("open", "mkdir", "rename", "replace", "unlink", "rmdir", "fsync", "scandir")
_DIED, _DONE = 77, 0


def dies_at(call: int, work: Callable[[], object]) -> bool:
    """Runs ``work`` in a child that ends, as by SIGKILL, just before its ``call``-th system call on files.

    Returns:
        Whether it got so far; False when the work was over before.
    """
    assert threading.active_count() < 10, "forking beside many threads may hang"
    child = os.fork()
    if child == 0:
        left = [call]

        def counted(real: Callable[..., Any]) -> Callable[..., Any]:
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                left[0] -= 1
                if left[0] == 0:
                    os._exit(_DIED)  # no handler, no finally runs
                return real(*args, **kwargs)

            return wrapper

        for name in _CALLS:
            setattr(os, name, counted(getattr(os, name)))
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(_DONE)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (_DIED, _DONE), code
    return code == _DIED


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fill(folder: Path, text: str) -> None:
    with new_folder(folder) as partial:
        (partial / "a").write_text(text)
        (partial / "sub").mkdir()
        (partial / "sub" / "b").write_text(text)


def content(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("before", ["nothing", "a folder", "leftovers"])
def test_new_folder_killed_at_any_call_leaves_the_old_or_the_new_one(tmp_path: Path, before: str) -> None:
    points = 0
    for call in range(1, 200):
        place = tmp_path / str(call)
        place.mkdir()
        if before != "nothing":
            fill(place / "best", "old")
        if before == "leftovers":
            for kind in (".partial-best", ".replaced-best"):
                (place / kind).mkdir()
                (place / kind / "a").write_text("half")
        if not dies_at(call, lambda place=place: fill(place / "best", "new")):
            break
        points += 1
        remove_leftovers(place)
        assert names(place) in ([], ["best"])
        if names(place):
            texts = content(place / "best")
            assert texts in ({"a": "new", "sub/b": "new"}, {"a": "old", "sub/b": "old"}), call
        else:
            assert before == "nothing"
        fill(place / "best", "next")
        assert (names(place), content(place / "best")["a"]) == (["best"], "next")
    assert points >= 8
    assert content(place / "best") == {"a": "new", "sub/b": "new"}


def test_write_bytes_killed_at_any_call_leaves_the_old_or_the_new_content(tmp_path: Path) -> None:
    seen = set()
    for call in range(1, 50):
        file = tmp_path / str(call) / "config.yaml"
        file.parent.mkdir()
        file.write_bytes(b"old")
        if not dies_at(call, lambda file=file: write_bytes(file, b"new")):
            break
        remove_leftovers(file.parent)
        assert names(file.parent) == ["config.yaml"]
        seen.add(file.read_bytes())
    assert seen == {b"old", b"new"}


def test_remove_folder_killed_at_any_call_leaves_it_whole_or_gone(tmp_path: Path) -> None:
    found = set()
    for call in range(1, 50):
        place = tmp_path / str(call)
        fill(place / "step-1", "old")
        if not dies_at(call, lambda place=place: remove_folder(place / "step-1")):
            break
        remove_leftovers(place)
        found.add((place / "step-1").exists())
        assert not found & {True} or not (place / "step-1").exists() or len(content(place / "step-1")) == 2
    assert found == {True, False}


def state(step: int) -> dict[str, Any]:
    return {"step": step, "weights": torch.full((50,), float(step))}


def test_checkpoint_killed_at_any_call_leaves_one_to_go_on_from(tmp_path: Path) -> None:
    steps = set()
    for call in range(1, 200):
        folder = tmp_path / str(call)
        for step in (1, 2):
            save_checkpoint(folder, state(step), step=step, keep=2)
        if not dies_at(call, lambda folder=folder: save_checkpoint(folder, state(3), step=3, keep=2)):
            break
        warnings: list[str] = []
        newest = latest_checkpoint(folder, warn=warnings.append)
        assert newest is not None and not warnings, call
        step = load_checkpoint(newest)["step"]
        steps.add(step)
        assert newest.name == f"step-{step}"
        kept = list_checkpoints(folder)
        assert len(kept) >= 2, "the one before must stay until the new one is there"
        assert [load_checkpoint(path)["step"] for path in kept] == [int(path.name[5:]) for path in kept]
        assert not [name for name in names(folder) if name.startswith(".")]
    assert steps == {2, 3}


def test_new_folder_refused_by_the_disk_keeps_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "best", "old")
    rename = Path.rename

    def full(path: Path, target: Path) -> Path:
        if path.name == ".partial-best":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", full)
        with pytest.raises(OSError, match="No space left"):
            fill(tmp_path / "best", "new")
    assert names(tmp_path) == ["best"]
    assert content(tmp_path / "best")["a"] == "old"

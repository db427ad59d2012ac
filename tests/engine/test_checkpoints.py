"""Checkpoints: whole or absent, whatever happens."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from perpixel.engine.checkpoints import latest_checkpoint, list_checkpoints, load_checkpoint, save_checkpoint
from perpixel.errors import CheckpointError, InvalidValue, RunError


def state(step: int) -> dict[str, Any]:
    return {"step": step, "weights": torch.full((50,), float(step)), "best": None, "random": (3, (1, 2), None)}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def no_warning(message: str) -> None:
    raise AssertionError(message)


def test_checkpoint_round_trip_is_exact(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "checkpoints", state(7), step=7)
    assert names(path) == ["manifest.json", "state.pt"]
    assert latest_checkpoint(path.parent, warn=no_warning) == path
    found = load_checkpoint(path)
    assert torch.equal(found["weights"], state(7)["weights"])
    assert {key: value for key, value in found.items() if key != "weights"} == {
        "step": 7,
        "best": None,
        "random": (3, (1, 2), None),
    }


def test_checkpoints_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (2, 4, 10, 12):
        save_checkpoint(tmp_path, state(step), step=step, keep=2)
    assert names(tmp_path) == ["step-10", "step-12"]
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-10", "step-12"]


def test_checkpoint_behind_later_ones_removes_them(tmp_path: Path) -> None:
    for step in (2, 4, 3):
        save_checkpoint(tmp_path, state(step), step=step, keep=1 if step == 3 else 5)
    assert names(tmp_path) == ["step-3"]


def test_checkpoint_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, state(1), step=1)
    save_checkpoint(tmp_path, {**state(1), "best": 0.5}, step=1)
    assert names(tmp_path) == ["step-1"]
    assert load_checkpoint(tmp_path / "step-1")["best"] == 0.5


def test_latest_checkpoint_of_nothing_is_none(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path / "absent", warn=no_warning) is None
    assert latest_checkpoint(tmp_path, warn=no_warning) is None


@pytest.mark.parametrize("harm", ["flip", "cut", "no manifest", "bad manifest", "no state"])
def test_latest_checkpoint_damaged_falls_back_with_a_warning(tmp_path: Path, harm: str) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, state(step), step=step)
    newest = tmp_path / "step-2"
    content = bytearray((newest / "state.pt").read_bytes())
    if harm == "flip":
        content[len(content) // 2] ^= 1
        (newest / "state.pt").write_bytes(content)
    elif harm == "cut":
        (newest / "state.pt").write_bytes(content[:100])
    elif harm == "no manifest":
        (newest / "manifest.json").unlink()
    elif harm == "bad manifest":
        (newest / "manifest.json").write_text(json.dumps([1]))
    else:
        (newest / "state.pt").unlink()
    warnings: list[str] = []
    assert latest_checkpoint(tmp_path, warn=warnings.append) == tmp_path / "step-1"
    assert len(warnings) == 1
    assert "step-2 is passed over" in warnings[0]


def test_latest_checkpoint_all_damaged_raises(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, state(1), step=1)
    (tmp_path / "step-1" / "state.pt").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"every checkpoint in .* is damaged \(step-1: the sha256 of state\.pt"):
        latest_checkpoint(tmp_path, warn=lambda message: None)


def test_latest_checkpoint_clears_what_a_killed_program_left(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, state(1), step=1)
    save_checkpoint(tmp_path, state(2), step=2)
    (tmp_path / ".partial-step-3").mkdir()
    (tmp_path / "step-2").rename(tmp_path / ".replaced-step-2")
    assert latest_checkpoint(tmp_path, warn=no_warning) == tmp_path / "step-2"
    assert names(tmp_path) == ["step-1", "step-2"]


def disk_full(*args: Any, **kwargs: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("where", ["os.fsync", "torch.save", "pathlib.Path.open", "pathlib.Path.rename"])
@pytest.mark.parametrize("step", [1, 2])
def test_checkpoint_disk_full_keeps_the_last_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, step: int
) -> None:
    save_checkpoint(tmp_path, state(1), step=1)
    with monkeypatch.context() as patch:
        patch.setattr(where, disk_full)
        with pytest.raises(
            RunError, match=rf"cannot write checkpoint .*step-{step}: .*No space left.*step-1 in .* stays"
        ):
            save_checkpoint(tmp_path, {**state(step), "best": 9}, step=step)
    assert names(tmp_path) == ["step-1"]
    assert latest_checkpoint(tmp_path, warn=no_warning) == tmp_path / "step-1"
    assert load_checkpoint(tmp_path / "step-1")["best"] is None


def test_checkpoint_disk_full_at_the_first_says_that_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(RunError, match="there is no earlier checkpoint"):
        save_checkpoint(tmp_path, state(1), step=1)
    assert names(tmp_path) == []


def test_checkpoint_ctrl_c_in_the_middle_keeps_the_last_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, state(1), step=1)

    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(tmp_path, state(2), step=2)
    assert names(tmp_path) == ["step-1"]


def test_checkpoint_real_write_limit_is_a_run_error(tmp_path: Path) -> None:
    """A limit on the size of files, set in a process of its own, fails inside torch's writer as a full disk does."""
    save_checkpoint(tmp_path, state(1), step=1)
    code = (
        "import resource, signal, sys, torch\n"
        "from pathlib import Path\n"
        "from perpixel.engine.checkpoints import save_checkpoint\n"
        "from perpixel.errors import RunError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "state = {'step': 2, 'weights': torch.zeros(300_000)}\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        "    save_checkpoint(Path(sys.argv[1]), state, step=2)\n"
        "except RunError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert "cannot write checkpoint" in done.stdout, done.stderr
    assert "step-1 in" in done.stdout
    assert done.returncode == 0
    assert names(tmp_path) == ["step-1"]


def test_checkpoint_keep_below_one_raises(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="keep_checkpoints must be at least 1, got 0"):
        save_checkpoint(tmp_path, state(1), step=1, keep=0)


def test_load_checkpoint_missing_or_foreign_raises(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot read .*state\.pt"):
        load_checkpoint(tmp_path)
    torch.save([1], tmp_path / "state.pt")
    with pytest.raises(CheckpointError, match="is not a training state"):
        load_checkpoint(tmp_path)


def test_load_checkpoint_with_code_inside_raises(tmp_path: Path) -> None:
    torch.save({"step": 1, "path": Path("x")}, tmp_path / "state.pt")
    with pytest.raises(CheckpointError, match=r"cannot read .*state\.pt"):
        load_checkpoint(tmp_path)

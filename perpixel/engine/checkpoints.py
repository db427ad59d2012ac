"""Full training state on disk: ``checkpoints/step-N/`` with ``state.pt`` and a manifest of its hash."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from perpixel.engine.atomic import new_folder, remove_leftovers
from perpixel.errors import CheckpointError, InvalidValue, RunError

__all__ = ["latest_checkpoint", "list_checkpoints", "load_checkpoint", "save_checkpoint"]

_STATE, _MANIFEST = "state.pt", "manifest.json"
_FORMAT = 1


def save_checkpoint(folder: Path, state: dict[str, Any], *, step: int, keep: int = 2) -> Path:
    """Writes ``folder/step-N`` so that it is complete or absent, then removes all but the newest ``keep`` up to N.

    Later steps are removed as well: a run that is at step N now has gone back behind them.

    Args:
        folder: The run's ``checkpoints`` folder; made when absent.
        state: Tensors and plain values: what ``torch.load(weights_only=True)`` reads.
        step: N.
        keep: Checkpoints that stay, at least 1.

    Returns:
        The new checkpoint's folder.

    Raises:
        InvalidValue: ``keep`` is below 1.
        RunError: the disk is full or refuses; the checkpoints from before are still there.
    """
    if keep < 1:
        raise InvalidValue(f"keep_checkpoints must be at least 1, got {keep}")
    target = folder / f"step-{step}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with new_folder(target) as partial:
            with (partial / _STATE).open("wb") as file:
                torch.save(state, file)
            entry = {"sha256": _sha256(partial / _STATE), "bytes": (partial / _STATE).stat().st_size}
            manifest = {"format": _FORMAT, "step": step, "files": {_STATE: entry}}
            (partial / _MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        for old in _superseded(folder, step, keep):
            shutil.rmtree(old)
    except (OSError, RuntimeError) as error:
        # torch's archive writer reports a failed write as RuntimeError; its cause is the disk all the same.
        left = [path.name for path in list_checkpoints(folder)]
        stays = f"{', '.join(left)} in {folder} stays usable" if left else "there is no earlier checkpoint"
        raise RunError(
            f"cannot write checkpoint {target}: {error}; {stays}. Free some space or mend the folder, then resume"
        ) from error
    return target


def list_checkpoints(folder: Path) -> list[Path]:
    """Returns the ``step-N`` folders, oldest step first."""
    if not folder.is_dir():
        return []
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := re.fullmatch(r"step-(\d+)", path.name))]
    return [path for _, path in sorted(found)]


def latest_checkpoint(folder: Path, *, warn: Callable[[str], None]) -> Path | None:
    """Returns the newest checkpoint whose hash is right, and clears what a killed program left unfinished.

    Args:
        folder: The run's ``checkpoints`` folder.
        warn: Called with a sentence for each checkpoint that is passed over.

    Returns:
        None when there is no checkpoint at all.

    Raises:
        CheckpointError: there are checkpoints and every one is damaged.
    """
    if folder.is_dir():
        remove_leftovers(folder)
    problems = []
    for path in reversed(list_checkpoints(folder)):
        problem = _damage(path)
        if problem is None:
            return path
        problems.append(f"{path.name}: {problem}")
        warn(f"checkpoint {path} is passed over: {problem}")
    if problems:
        raise CheckpointError(
            f"every checkpoint in {folder} is damaged ({'; '.join(problems)}); delete them to start at step 0"
        )
    return None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads the state of a checkpoint to the CPU; no code from the file is run.

    Raises:
        CheckpointError: the file is missing, damaged or not a training state.
    """
    try:
        state = torch.load(path / _STATE, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"cannot read {path / _STATE}: {error}; resume from an earlier checkpoint") from error
    if not isinstance(state, dict) or "step" not in state:
        raise CheckpointError(f"{path / _STATE} is not a training state: it holds no 'step'; was it written by hand?")
    return state


def _superseded(folder: Path, step: int, keep: int) -> list[Path]:
    """Returns the checkpoints that the one of ``step`` makes needless."""
    paths = list_checkpoints(folder)
    newest = paths.index(folder / f"step-{step}") + 1
    return paths[: max(newest - keep, 0)] + paths[newest:]


def _damage(path: Path) -> str | None:
    """Returns what is wrong with a checkpoint, or None when its files match the manifest."""
    try:
        manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
        for name, entry in manifest["files"].items():
            if _sha256(path / name) != entry["sha256"]:
                return f"the sha256 of {name} does not match {_MANIFEST}"
    except OSError as error:
        return f"cannot read {error.filename}: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{_MANIFEST} is not readable"
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

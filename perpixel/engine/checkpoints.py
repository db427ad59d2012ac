"""Full training state on disk: ``checkpoints/step-N/`` with ``state.pt`` and a manifest of its hash.

One process writes all of it into ``state.pt``. Several write the tensors together into ``shards/``, and the main one
all else; any number of processes reads either.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import torch

import perpixel
from perpixel.engine.atomic import new_folder, remove_folder, remove_leftovers
from perpixel.engine.distributed import World
from perpixel.engine.shards import read_shards, write_shards
from perpixel.errors import CheckpointError, InvalidValue, RunError

__all__ = ["latest_checkpoint", "list_checkpoints", "load_checkpoint", "read_manifest", "save_checkpoint"]

T = TypeVar("T")

_STATE, _SHARDS, _MANIFEST = "state.pt", "shards", "manifest.json"
_FORMAT = 2


def save_checkpoint(
    folder: Path, state: dict[str, Any], *, step: int, keep: int = 2, world: World | None = None
) -> Path:
    """Writes ``folder/step-N`` so that it is complete or absent, then removes all but the newest ``keep`` up to N.

    Later steps are removed as well: a run that is at step N now has gone back behind them.

    Args:
        folder: The run's ``checkpoints`` folder; made when absent. All processes must see the same.
        state: Tensors and plain values: what ``torch.load(weights_only=True)`` reads.
        step: N.
        keep: Checkpoints that stay, at least 1.
        world: Several processes write ``state["tensors"]`` together, the main one all else.

    Returns:
        The new checkpoint's folder.

    Raises:
        InvalidValue: ``keep`` is below 1.
        RunError: the disk is full or refuses; the checkpoints from before are still there.
    """
    if keep < 1:
        raise InvalidValue(f"keep_checkpoints must be at least 1, got {keep}")
    world = World() if world is None else world
    target = folder / f"step-{step}"
    with ExitStack() as unfinished:

        def begin() -> Path:
            folder.mkdir(parents=True, exist_ok=True)
            return unfinished.enter_context(new_folder(target))

        def write_plain(values: dict[str, Any]) -> None:
            with (partial / _STATE).open("wb") as file:
                torch.save(values, file)
            _write_manifest(partial, step, world)

        def end() -> None:
            unfinished.close()
            for old in _superseded(folder, step, keep):
                remove_folder(old)

        partial = world.from_main(lambda: _on_disk(folder, target, begin))
        if world.size > 1:
            world.checked(lambda: _on_disk(folder, target, lambda: write_shards(partial / _SHARDS, state["tensors"])))
            state = {name: value for name, value in state.items() if name != "tensors"}
        world.main_only(lambda: _on_disk(folder, target, lambda: write_plain(state)))
        world.main_only(lambda: _on_disk(folder, target, end))
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
        try:
            remove_leftovers(folder)
        except OSError as error:
            raise CheckpointError(f"cannot clear {folder} of what a killed run left: {error}; mend it") from error
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


def load_checkpoint(path: Path, live: Callable[[str], torch.Tensor | None] = lambda _: None) -> dict[str, Any]:
    """Reads the state of a checkpoint to the CPU; no code from the file is run.

    Args:
        path: Of one process or several; whichever wrote it, any number of processes reads it.
        live: The tensor that the named one of ``tensors`` will be copied to: sliced ones are read in slices.

    Raises:
        CheckpointError: the file is missing, damaged or not a training state.
    """
    try:
        state = torch.load(path / _STATE, map_location="cpu", weights_only=True)
        if isinstance(state, dict) and (path / _SHARDS).is_dir():
            state["tensors"] = read_shards(path / _SHARDS, live)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"cannot read {path / _STATE}: {error}; resume from an earlier checkpoint") from error
    if not isinstance(state, dict) or "step" not in state:
        raise CheckpointError(f"{path / _STATE} is not a training state: it holds no 'step'; was it written by hand?")
    return state


def read_manifest(path: Path) -> dict[str, Any]:
    """Returns what a checkpoint says of its making: ``perpixel``, ``torch``, ``world_size``, ``step``, ``format``.

    Raises:
        CheckpointError: it cannot be read, or is of a format that this version does not know.
    """
    try:
        manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
        known = manifest["format"] == _FORMAT
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"cannot read {path / _MANIFEST}: {error}; resume from an earlier checkpoint") from error
    if not known:
        raise CheckpointError(
            f"{path} is of format {manifest['format']}, this version of perpixel ({perpixel.__version__}) reads "
            f"format {_FORMAT}; resume with the version that wrote it ({manifest.get('perpixel', 'an earlier one')}), "
            "or start anew from best/ with --from"
        )
    return dict(manifest)


def _write_manifest(partial: Path, step: int, world: World) -> None:
    files = {
        file.relative_to(partial).as_posix(): {"sha256": _sha256(file), "bytes": file.stat().st_size}
        for file in sorted(partial.rglob("*"))
        if file.is_file()
    }
    versions = {"perpixel": perpixel.__version__, "torch": str(torch.__version__)}
    manifest = {"format": _FORMAT, "step": step, **versions, "world_size": world.size, "files": files}
    (partial / _MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _on_disk(folder: Path, target: Path, work: Callable[[], T]) -> T:
    """Turns what the disk refuses into a RunError that says what stays."""
    try:
        return work()
    except (OSError, RuntimeError) as error:
        # torch's archive writer reports a failed write as RuntimeError; its cause is the disk all the same.
        left = [path.name for path in list_checkpoints(folder)]
        stays = f"{', '.join(left)} in {folder} stays usable" if left else "there is no earlier checkpoint"
        raise RunError(
            f"cannot write checkpoint {target}: {error}; {stays}. Free some space or mend the folder, then resume"
        ) from error


def _superseded(folder: Path, step: int, keep: int) -> list[Path]:
    """Returns the checkpoints that the one of ``step`` makes needless."""
    paths = list_checkpoints(folder)
    newest = paths.index(folder / f"step-{step}") + 1
    return paths[: max(newest - keep, 0)] + paths[newest:]


def _damage(path: Path) -> str | None:
    """Returns what is wrong with a checkpoint, or None when its files match the manifest."""
    try:
        manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
        if not manifest["files"]:
            return f"{_MANIFEST} names no file"
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

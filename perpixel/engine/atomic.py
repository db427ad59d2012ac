"""Files and folders that are either all there or not there, whatever stops the program."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["new_folder", "remove_folder", "remove_leftovers", "sync", "write_bytes"]

_PARTIAL = ".partial-"
_REPLACED = ".replaced-"


def sync(path: Path) -> None:
    """Waits until a file's content, or a folder's list of names, is on the disk.

    Raises:
        OSError: the disk reports an error; disk full shows here on some file systems.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name, syncs it and renames it.

    Raises:
        OSError: it could not be written; what was at ``path`` is unchanged.
    """
    partial = path.with_name(f"{_PARTIAL}{path.name}")
    try:
        partial.write_bytes(content)
        sync(partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync(path.parent)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields an empty temporary folder that takes the name ``path`` when the block ends well.

    Its files are synced first. A folder that had the name before goes only then; when the block raises, whatever it
    raises, the temporary folder is removed and the old one stays.

    Raises:
        OSError: a step on the disk failed.
    """
    partial = path.with_name(f"{_PARTIAL}{path.name}")
    replaced = path.with_name(f"{_REPLACED}{path.name}")
    _remove(partial)
    partial.mkdir(parents=True)
    try:
        yield partial
        for file in sorted(partial.rglob("*"), reverse=True):
            sync(file)
        sync(partial)
        if path.exists():
            _remove(replaced)
            path.rename(replaced)
        partial.rename(path)
    except BaseException:
        _remove(partial)
        if replaced.exists() and not path.exists():
            with suppress(OSError):
                replaced.rename(path)
        raise
    sync(path.parent)
    _remove(replaced)


def remove_folder(path: Path) -> None:
    """Deletes a folder, or a file in its place, so that it is all there or gone, whatever stops the program.

    Raises:
        OSError: the disk refuses.
    """
    partial = path.with_name(f"{_PARTIAL}{path.name}")
    _remove(partial)
    path.rename(partial)
    _remove(partial)


def remove_leftovers(folder: Path) -> list[Path]:
    """Clears what a killed program left: puts a half-replaced folder back and deletes unfinished ones.

    Returns:
        The paths that were removed or put back.

    Raises:
        OSError: a folder could not be put back.
    """
    handled = []
    for replaced in folder.glob(f"{_REPLACED}*"):
        original = replaced.with_name(replaced.name.removeprefix(_REPLACED))
        if original.exists():
            _remove(replaced)
        else:
            replaced.rename(original)
        handled.append(replaced)
    for partial in folder.glob(f"{_PARTIAL}*"):
        _remove(partial)
        handled.append(partial)
    return handled


def _remove(path: Path) -> None:
    """Deletes what has a temporary name, whatever it is; what the disk keeps is deleted at the next start."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
